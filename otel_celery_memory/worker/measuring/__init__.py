"""What a task did to memory."""
