"""What comes from the broker, before it is a task: read without trust, put into one form, or dropped."""
