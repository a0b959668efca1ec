"""What ``manage.py jobs`` does, one file for each kind of doing."""
