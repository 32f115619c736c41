"""What people read: figures, the HTML pages, the terminal's table, all from the files of result/<run>/."""
