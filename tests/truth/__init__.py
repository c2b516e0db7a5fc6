"""What a person concludes from the numbers of a real worker, held against what is true."""
