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

	// ErrNotRegular means that a name stands for something else than a file of
	// ours: a directory, symlink, FIFO, socket or device.
	ErrNotRegular = errors.New("not a regular file")
)

// Why a directory is refused, see [RefusedError].
var (
	ErrNotDirectory = errors.New("not a directory")
	ErrSymlink      = errors.New("a symlink")
	ErrOwner        = errors.New("owned by another user")
	ErrMode         = errors.New("open to other users")
	ErrNetwork      = errors.New("on a network file system")
	ErrTwoJournals  = errors.New("a directory with two journals")
)

// RefusedError is a directory, or a file in it, that the journal must not use.
type RefusedError struct {
	Path   string
	Reason error  // one of ErrNotDirectory, ErrSymlink, ErrOwner, ErrMode, ErrNetwork, ErrTwoJournals
	Detail string // what was found, and what to do
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s is %v: %s", e.Path, e.Reason, e.Detail)
}

func (e *RefusedError) Unwrap() error { return e.Reason }

// LockedError is an [ErrLocked] with the directory and the holder of its lock.
type LockedError struct {
	Path   string
	Holder Holder
	Err    error // the cause of the context that ended
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%v uses the directory %s: %v", e.Holder, e.Path, e.Err)
}

func (e *LockedError) Unwrap() []error { return []error{ErrLocked, e.Err} }

// fail names the operation and the entry. It drops the path that package os
// puts into its errors: those of a Root and those of its files disagree, and
// the directory is the caller's to name.
func fail(op, name string, err error) error {
	if err == nil || err == io.EOF { // a reader compares io.EOF with ==
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
