package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Options change what [Open] accepts.
type Options struct {
	AllowNetwork bool // a directory on a network file system
}

// Open opens a directory for this process alone. A missing one is made, with
// its parents, mode 0700, and is on disk when Open returns. One that others
// may have put something into, or could, is a [*RefusedError]: it must be a
// directory and not a symlink to one (its parents may be symlinks), owned by
// the effective user, with no permission for group and others, and not on a
// network file system.
func Open(path string, opts Options) (Dir, error) {
	if path == "" {
		return nil, fail("open", path, fs.ErrInvalid)
	}
	path = filepath.Clean(path) // a trailing slash would follow a symlink
	if err := makeAll(path); err != nil {
		return nil, err
	}
	look := func() (fs.FileInfo, error) { return os.Lstat(path) }
	if err := checkDirectory(path, look); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path + string(filepath.Separator) + ".") // the dot: never to wait for a FIFO
	if err != nil {
		return nil, err
	}
	return newDir(path, root, look, opts)
}

// makeAll makes the directory and the parents it lacks, and syncs the entry of
// each in its parent. It does the last also for a directory that exists:
// whoever made it may have been killed just then.
func makeAll(path string) error {
	parent := filepath.Dir(path)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeAll(parent); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	} else if err != nil {
		return err
	}
	return syncParent(parent)
}

func syncParent(parent string) error {
	f, err := os.Open(parent)
	if errors.Is(err, fs.ErrPermission) {
		return nil // it may be passed through but not read; nothing can be done from here
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syncDir(f); err != nil {
		return fmt.Errorf("sync %s: %w", parent, err)
	}
	return nil
}

// newDir checks the directory behind root, which it takes over. look says what
// its name stands for now: before it was opened that could have been another
// one, and even have had the same inode number.
func newDir(path string, root *os.Root, look func() (fs.FileInfo, error), opts Options) (_ Dir, err error) {
	d := &dir{path: path, root: root, opts: opts}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.self, err = root.Open("."); err != nil {
		return nil, err
	}
	info, err := d.self.Stat()
	if err != nil {
		return nil, err
	}
	named, err := look()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(named, info) {
		return nil, &RefusedError{path, ErrSymlink, "it was replaced while it was opened"}
	}
	if err := checkAccess(path, info); err != nil {
		return nil, err
	}
	if d.system, err = fileSystem(d.self); err != nil {
		return nil, fmt.Errorf("file system of %s: %w", path, err)
	}
	if err := checkFileSystem(path, d.system, opts); err != nil {
		return nil, err
	}
	return d, nil
}

func checkDirectory(path string, look func() (fs.FileInfo, error)) error {
	switch info, err := look(); {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return &RefusedError{path, ErrSymlink, "name the directory that it points to"}
	case !info.IsDir():
		return &RefusedError{path, ErrNotDirectory, "its mode is " + info.Mode().String()}
	}
	return nil
}

func checkFileSystem(path string, system FileSystem, opts Options) error {
	if system.Network && !opts.AllowNetwork {
		return &RefusedError{path, ErrNetwork, system.Name + " cannot promise what a local disk does"}
	}
	return nil
}
