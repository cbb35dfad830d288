"""Networks and their loss; fcn.py is the file to read first."""
