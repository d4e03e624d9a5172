package vfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// How long Lock waits between two tries.
const (
	minLockWait = 5 * time.Millisecond
	maxLockWait = 200 * time.Millisecond
)

// errHeld is what tryLock returns when someone else has the lock.
var errHeld = errors.New("held")

// Lock tries again and again, because a system call that waits for a lock
// cannot be ended with ctx.
func (d *dir) Lock(ctx context.Context) error {
	for wait := minLockWait; ; wait = min(2*wait, maxLockWait) {
		if err := d.lockOnce(); !errors.Is(err, errHeld) {
			return fail("lock", LockName, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fail("lock", LockName, &LockedError{Path: d.path, Holder: d.holder(), Err: context.Cause(ctx)})
		}
	}
}

func (d *dir) lockOnce() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return errors.New("locked before")
	}
	f, err := d.openLock()
	if err != nil {
		return err
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return err
	}
	if err := d.stillLock(f); err != nil {
		f.Close()
		return err
	}
	d.lock = f
	writeHolder(f)
	return nil
}

// openLock opens the LOCK file, for writing because some network file systems
// lock no other.
func (d *dir) openLock() (*os.File, error) {
	for {
		f, err := d.root.OpenFile(LockName, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
		f, err = d.openRegular(LockName, openFlags|os.O_RDWR)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
}

// stillLock says whether the LOCK file is the one we have locked. A person may
// have deleted it between our opening and locking it.
func (d *dir) stillLock(f *os.File) error {
	locked, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := d.root.Lstat(LockName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
		return errHeld // try again, with the new one
	}
	if err != nil {
		return err
	}
	return d.keepsModes(locked)
}

// keepsModes refuses a file system that gives every file one mode, such as FAT,
// if other users may enter the directory. The LOCK file is the first file there.
func (d *dir) keepsModes(lock fs.FileInfo) error {
	self, err := d.self.Stat()
	if err == nil && othersMay(self, othersAny) && othersMay(lock, othersAny) {
		err = refuseMode(filepath.Join(d.path, LockName), lock.Mode(), fileMode, nil)
	}
	return err
}
