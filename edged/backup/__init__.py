"""Backup and restore: configuration, state and buffer of one gateway in one file.

    collect → copies of the databases → archive → verify          restore: verify → stage → journal → rename → done

Used by the command line. The daemon knows of it only what finishes a restore that was interrupted (`pending`).
"""
