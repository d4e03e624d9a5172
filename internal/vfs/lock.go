package vfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Lock waits this long between two attempts.
const (
	minLockWait = 5 * time.Millisecond
	maxLockWait = 200 * time.Millisecond
)

// errHeld is the error of tryLock when another process or Dir has the lock.
var errHeld = errors.New("held")

// Lock polls, because ctx cannot end a system call that waits for a lock.
func (d *dir) Lock(ctx context.Context) error {
	for wait := minLockWait; ; wait = min(2*wait, maxLockWait) {
		if err := d.lockOnce(); !errors.Is(err, errHeld) {
			return pathError("lock", LockName, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return pathError("lock", LockName, &LockedError{Path: d.path, Holder: d.holder(), Err: context.Cause(ctx)})
		}
	}
}

func (d *dir) lockOnce() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return errors.New("this Dir has the lock already")
	}
	f, err := d.openLock()
	if err != nil {
		return err
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return err
	}
	if err := d.checkLock(f); err != nil {
		f.Close()
		return err
	}
	d.lock = f
	writeHolder(f)
	return nil
}

// openLock opens the LOCK file for writing: some network file systems do not lock
// a file that was opened read-only.
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

// checkLock returns errHeld if the directory's LOCK file is not the locked file f.
// An operator may have deleted the LOCK file between openLock and tryLock. Then
// another process could create and lock a second LOCK file.
func (d *dir) checkLock(f *os.File) error {
	locked, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := d.root.Lstat(LockName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
		return errHeld // Lock retries with the new file
	}
	if err != nil {
		return err
	}
	return d.checkModes(locked)
}

// checkModes refuses a file system that gives every file the same mode, such as
// FAT, if other users may enter the directory. It checks the LOCK file, which is
// the first file in the directory.
func (d *dir) checkModes(lock fs.FileInfo) error {
	self, err := d.self.Stat()
	if err == nil && othersMay(self, othersAny) && othersMay(lock, othersAny) {
		err = refuseMode(filepath.Join(d.path, LockName), lock.Mode(), fileMode, nil)
	}
	return err
}
