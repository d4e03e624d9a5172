package vfs

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// dir is a directory of the operating system.
type dir struct {
	path   string // for RefusedErrors of subdirectories
	root   *os.Root
	opts   Options
	system FileSystem

	// self is the directory as a file. It stays open until Close, for two reasons:
	// Sync must not fail at the descriptor limit, and the kernel reports a failed
	// write only to descriptors that were open at that time.
	self *os.File

	mu   sync.Mutex
	lock *os.File // see Lock
}

func (d *dir) Create(name string) (File, error) {
	if err := CheckName(name); err != nil {
		return nil, pathError("create", name, err)
	}
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return &file{name: name, f: f}, nil
}

func (d *dir) Open(name string) (File, error) {
	if err := CheckName(name); err != nil {
		return nil, pathError("open", name, err)
	}
	f, err := d.openRegular(name, openFlags)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &file{name: name, f: f, readOnly: true}, nil
}

// openRegular opens a regular file. It checks the type before opening, because
// opening a device can have side effects.
func (d *dir) openRegular(name string, flags int) (*os.File, error) {
	seen, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	return d.openVerified(name, flags)
}

// openVerified opens an entry and then checks that its name still refers to the
// open file, and that the file is regular. The check comes after opening:
//
//  1. The caller's Lstat sees a regular file.
//  2. Another process replaces the file by a symlink.
//  3. OpenFile follows the symlink, because a Root allows links inside of it.
//
// Comparing with the FileInfo of step 1 would not be enough: a new file can have
// the inode number of a removed file, but not of an open file.
func (d *dir) openVerified(name string, flags int) (*os.File, error) {
	f, err := d.root.OpenFile(name, flags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		var named fs.FileInfo
		named, err = d.root.Lstat(name)
		if err == nil && !(info.Mode().IsRegular() && os.SameFile(named, info)) {
			err = ErrNotRegular
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d *dir) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return pathError("remove", name, err)
	}
	info, err := d.root.Lstat(name)
	if err == nil && info.IsDir() {
		err = ErrNotRegular
	}
	if err == nil {
		err = d.root.Remove(name)
	}
	return pathError("remove", name, err)
}

func (d *dir) List() ([]Entry, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	list := make([]Entry, 0, len(names))
	for _, name := range names {
		info, err := d.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process removed it after names read the directory
		}
		if err != nil {
			return nil, pathError("list", name, err)
		}
		e := Entry{Name: name, Type: info.Mode().Type()}
		if info.Mode().IsRegular() {
			e.Size = info.Size()
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (d *dir) Sync() error { return pathError("sync", ".", syncDir(d.self)) }

func (d *dir) names() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, pathError("list", ".", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, pathError("list", ".", err)
}

func (d *dir) Sub(name string) (Dir, error) {
	if err := CheckName(name); err != nil {
		return nil, pathError("mkdir", name, err)
	}
	sub, err := d.openSub(name)
	if err != nil {
		return nil, err
	}
	if _, err := sub.restoreModes(othersAny); err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// openSub opens a subdirectory, made if it is missing. It does not check the owner.
func (d *dir) openSub(name string) (*dir, error) {
	if err := d.root.Mkdir(name, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, pathError("mkdir", name, err)
	}
	lstat := func() (fs.FileInfo, error) { return d.root.Lstat(name) }
	path := filepath.Join(d.path, name)
	info, err := lstatDir(path, lstat)
	if err != nil {
		return nil, err
	}
	root, err := d.root.OpenRoot(name)
	if errors.Is(err, fs.ErrPermission) && !isOurs(info) {
		return nil, refuseOwner(path, info)
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return newDir(path, root, lstat, d.opts)
}

func (d *dir) FileSystem() FileSystem { return d.system }

func (d *dir) Free() (int64, error) {
	free, err := freeBytes(d.self)
	return free, pathError("statfs", ".", err)
}

func (d *dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if d.self != nil {
		errs = append(errs, pathError("close", ".", d.self.Close()))
	}
	errs = append(errs, d.root.Close())
	if d.lock != nil { // last: no other process may use the directory before
		clearHolder(d.lock)
		errs = append(errs, pathError("unlock", LockName, unlock(d.lock)), pathError("close", LockName, d.lock.Close()))
		d.lock = nil
	}
	return errors.Join(errs...)
}
