"""What is known of one worker."""
