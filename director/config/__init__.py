"""A director's files: read, checked, compared, made. Nothing here runs."""

__all__ = [
    "addresses", "bootstrap", "check", "extra", "files", "init", "legacy_xml", "loops", "reload", "secret",
    "self_signed", "summary",
]
