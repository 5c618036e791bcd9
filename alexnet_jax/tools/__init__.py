"""Programs that apply, draw and describe networks, one file each."""
