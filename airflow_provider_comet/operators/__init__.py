"""Tasks that submit predictions and store their files."""
