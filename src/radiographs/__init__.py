"""One image file to grey pixels; knows no labels."""
