package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// PrivateName is the journal's subdirectory in a directory that other users may
// write. Do not change it: the next run must find the journal there.
const PrivateName = "s3sink-spool"

// Modes of a directory and of the files in it.
const (
	dirMode  fs.FileMode = 0o700
	fileMode fs.FileMode = 0o600

	othersAny   fs.FileMode = 0o077
	othersWrite fs.FileMode = 0o022
	worldWrite  fs.FileMode = 0o002
)

// Found describes the journal's directory that [Open] found or made.
type Found struct {
	Path  string      // Open's path, or PrivateName in it
	Mode  fs.FileMode // the directory's mode before it was set to 0700; 0 if it was not changed
	Files int         // number of files whose mode was set to 0600
}

// Changed reports whether any mode was changed.
func (f Found) Changed() bool { return f.Mode != 0 || f.Files > 0 }

// needsPrivate reports whether the journal lies in the subdirectory PrivateName of
// d, and not in d itself. It refuses d if both answers would leave the events of an
// existing journal undelivered.
//
// The mode of a directory that other users share stays as it is, because they
// would lose access. The exception is a directory with a journal of this user. A
// LOCK file alone counts as a journal if kubelet could have changed the mode:
// kubelet gives access to a group, not to all users. An empty journal has no other
// file, and the holder of its lock may still run:
//
//  1. Pod A has an empty journal in /data/spool, mode 0700, and its lock.
//  2. Pod B starts on the same node. Its mount sets /data/spool to 2770.
//  3. B takes /data/spool/s3sink-spool, and A's last events stay in /data/spool.
func (d *dir) needsPrivate() (bool, error) {
	info, err := d.self.Stat()
	if err != nil {
		return false, err
	}
	private, err := d.hasEntry(PrivateName)
	if err != nil {
		return false, err
	}
	journal, lock, err := d.findJournal(info)
	if err != nil {
		return false, err
	}
	kubelet := info.Mode()&fs.ModeSticky == 0 && !othersMay(info, worldWrite)
	switch {
	case journal && private:
		return false, &RefusedError{d.path, ErrTwoJournals, fmt.Sprintf("journal files are in it and in its subdirectory %s; "+
			"move the subdirectory elsewhere, and run a sink on each of the two until it is empty", PrivateName)}
	case journal && !isOurs(info):
		return false, refuseOwner(d.path, info)
	case private:
		return true, nil
	case isOurs(info) && !othersMay(info, othersWrite):
		return false, nil
	}
	return !(journal || lock && kubelet && isOurs(info)), nil
}

func (d *dir) hasEntry(name string) (bool, error) {
	_, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, pathError("stat", name, err)
}

// findJournal reports whether d has journal files, and whether it has a LOCK file.
// Only files of this user and of d's owner count. Otherwise any user with write
// access to d could keep this process out of it.
func (d *dir) findJournal(self fs.FileInfo) (journal, lock bool, err error) {
	err = d.eachJournalFile(func(name string, info fs.FileInfo) error {
		if info.Mode().IsRegular() && (isOurs(info) || sameOwner(info, self)) {
			journal = journal || name != LockName
			lock = lock || name == LockName && isOurs(info)
		}
		return nil
	})
	return journal, lock, err
}

// eachJournalFile calls do for the LOCK file and for every entry that has the name
// of a journal file, including entries that are not regular files.
func (d *dir) eachJournalFile(do func(name string, info fs.FileInfo) error) error {
	names, err := d.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != LockName && (d.opts.JournalFile == nil || !d.opts.JournalFile(name)) {
			continue
		}
		info, err := d.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the holder of the lock removed it after names read the directory
		}
		if err != nil {
			return pathError("stat", name, err)
		}
		if err := do(name, info); err != nil {
			return err
		}
	}
	return nil
}

// restoreModes refuses a directory that belongs to another user. It sets the
// directory's mode to 0700 if other users have a permission of mask, and the mode
// of the journal's files to 0600.
func (d *dir) restoreModes(mask fs.FileMode) (Found, error) {
	found := Found{Path: d.path}
	info, err := d.self.Stat()
	if err != nil {
		return found, err
	}
	if !isOurs(info) {
		return found, refuseOwner(d.path, info)
	}
	if othersMay(info, mask) {
		found.Mode = info.Mode()
		if info, err = setMode(d.self, dirMode); err != nil || othersMay(info, othersAny) {
			return found, refuseMode(d.path, found.Mode, dirMode, err)
		}
	}
	hidden := !othersMay(info, othersAny) // other users cannot reach its files
	err = d.eachJournalFile(func(name string, info fs.FileInfo) error {
		switch {
		case !info.Mode().IsRegular(): // recovery ignores it; Lock refuses a LOCK of this kind
			return nil
		case !isOurs(info):
			return refuseOwner(filepath.Join(d.path, name), info)
		case !othersMay(info, othersAny):
			return nil
		}
		err := d.restoreFile(name, info)
		if err == nil {
			found.Files++
		}
		if errors.Is(err, fs.ErrNotExist) || hidden {
			return nil
		}
		return err
	})
	return found, err
}

func (d *dir) restoreFile(name string, info fs.FileInfo) error {
	f, err := d.openVerified(name, openFlags)
	if err != nil {
		return pathError("open", name, err)
	}
	defer f.Close()
	now, err := setMode(f, fileMode)
	if err != nil || othersMay(now, othersAny) {
		return refuseMode(filepath.Join(d.path, name), info.Mode(), fileMode, err)
	}
	return nil
}

// setMode changes a mode and returns the resulting FileInfo: some file systems
// ignore the call.
func setMode(f *os.File, mode fs.FileMode) (fs.FileInfo, error) {
	if err := f.Chmod(mode); err != nil {
		return nil, err
	}
	return f.Stat()
}

// refuseOwner returns the error for a directory that may hold another user's
// journal, and for a file of such a journal.
func refuseOwner(path string, info fs.FileInfo) error {
	return &RefusedError{path, ErrOwner, ownership(info) + "; if a spool is in it, run the process as that user, " +
		"or chown -R the directory while no process uses it: a sink in another directory does not find these events"}
}

// refuseParent returns the error for a directory that needs a subdirectory and that
// this process may not write.
func refuseParent(path string, info fs.FileInfo) error {
	return &RefusedError{path, ErrOwner, ownership(info) + "; it may make no subdirectory there: chown the directory, " +
		"or let the process's group write it (in Kubernetes: fsGroup)"}
}

func refuseMode(path string, was, want fs.FileMode, err error) error {
	why := "the file system ignores chmod"
	if err != nil {
		why = err.Error()
	}
	return &RefusedError{path, ErrMode, fmt.Sprintf("its mode is %v, and it cannot be set to %04o: %s; "+
		"mount the file system with modes that keep others out (dir_mode=0700,file_mode=0600), or use another one", was, want, why)}
}
