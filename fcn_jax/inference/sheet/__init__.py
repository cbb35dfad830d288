"""The contact sheet of a data set: a page of small images with their labels."""
