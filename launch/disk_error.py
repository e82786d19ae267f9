"""The last resort: what the system says of a file or folder of the user's, as one line that says what to do."""

from __future__ import annotations

import errno

from guiderail.agent.errors import SetupError

_DO = {
    errno.ENOSPC: "make room on this disk, or give another --out, and run the command again",
    errno.EDQUOT: "make room in your quota, or give another --out, and run the command again",
    errno.EACCES: "give a place that you may read and write",
    errno.EPERM: "give a place that you may read and write",
    errno.EROFS: "this file system is read-only; give a place that you may write",
    errno.EISDIR: "this is a folder; give a file",
    errno.ENOTDIR: "a part of this path is a file; give a path through folders",
    errno.EEXIST: "there is a file of this name; give another",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EMFILE: "too many files are open; raise the limit with: ulimit -n 4096",
}


def disk_error(error: OSError) -> SetupError:
    """SetupError: path, what the system said, what to do."""
    path = error.filename2 or error.filename
    what = error.strerror or str(error) or type(error).__name__
    place = f"{path}: " if path is not None else ""
    return SetupError(f"{place}{what}; {_DO.get(error.errno or 0, 'check the paths of this command')}")
