package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

var (
	// ErrLocked means that another process, or another Dir of this one, holds
	// the directory's lock.
	ErrLocked = errors.New("the directory is in use by another process")

	// ErrNotRegular means that an entry is not a regular file: it is a directory,
	// symlink, FIFO, socket or device.
	ErrNotRegular = errors.New("not a regular file")
)

// The reasons of a [RefusedError].
var (
	ErrNotDirectory = errors.New("not a directory")
	ErrSymlink      = errors.New("a symlink")
	ErrOwner        = errors.New("owned by another user")
	ErrMode         = errors.New("open to other users")
	ErrNetwork      = errors.New("on a network file system")
	ErrTwoJournals  = errors.New("a directory with two journals")
)

// RefusedError reports a directory, or a file in it, that the journal must not use.
type RefusedError struct {
	Path   string
	Reason error  // one of ErrNotDirectory, ErrSymlink, ErrOwner, ErrMode, ErrNetwork, ErrTwoJournals
	Detail string // the state found, and how to fix it
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s is %v: %s", e.Path, e.Reason, e.Detail)
}

func (e *RefusedError) Unwrap() error { return e.Reason }

// LockedError is an [ErrLocked] that names the directory and the lock's holder.
type LockedError struct {
	Path   string
	Holder Holder
	Err    error // the cause of the ended context
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%v uses the directory %s: %v", e.Holder, e.Path, e.Err)
}

func (e *LockedError) Unwrap() []error { return []error{ErrLocked, e.Err} }

// pathError wraps err with the operation and the entry's name. It drops the path
// in errors of package os: an os.Root and its files report different paths, and
// callers add the directory themselves.
func pathError(op, name string, err error) error {
	if err == nil || errors.Is(err, io.EOF) { // readers expect a bare io.EOF
		return err
	}
	if inner := (*fs.PathError)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	if inner := (*os.SyscallError)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
