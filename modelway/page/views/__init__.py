"""What the page looks like: functions from what is known to HTML."""
