"""The program behind `archive_command` and `restore_command` for filesystem destinations (DESIGN 7).

Standard library only, Python >= 3.9: the server's account often cannot read our package, and the program
starts once per segment. `install.py` packs this folder into one file, `archive_program.pyz`:
`python -I -S archive_program.pyz push|fetch --config wal.json PATH NAME`.
"""
