package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Options change what [Open] accepts.
type Options struct {
	AllowNetwork bool // a directory on a network file system

	// JournalFile reports whether an entry has the name of a journal file. Nil
	// means that no entry has.
	JournalFile func(name string) bool

	// Found, if not nil, is called before Open returns without an error.
	Found func(Found)
}

// Open opens a directory for this process alone. It makes a missing directory and
// its missing parents with mode 0700, and syncs their entries. The path must not
// be a symlink, although its parents may be, and must not be on a network file
// system.
//
// The journal lies in the directory itself in two cases:
//
//   - The directory belongs to the effective user, and no other user may write it.
//   - The directory has a journal of this user already. Open sets the directory's
//     mode to 0700 if other users may write it, and the files' modes to 0600.
//
// Otherwise the journal lies in the subdirectory [PrivateName], in this run and in
// the following ones. The subdirectory must belong to the effective user, and Open
// sets its mode to 0700.
//
// A directory with a journal of another user is a [*RefusedError]: no process
// would deliver the events in it.
func Open(path string, opts Options) (Dir, error) {
	if path == "" {
		return nil, pathError("open", path, fs.ErrInvalid)
	}
	path = filepath.Clean(path) // a trailing slash would follow a symlink
	if err := makeAll(path); err != nil {
		return nil, err
	}
	lstat := func() (fs.FileInfo, error) { return os.Lstat(path) }
	info, err := lstatDir(path, lstat)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path + string(filepath.Separator) + ".") // the dot keeps the call from waiting for a FIFO
	if errors.Is(err, fs.ErrPermission) && !isOurs(info) {
		return nil, refuseOwner(path, info)
	}
	if err != nil {
		return nil, err
	}
	d, err := newDir(path, root, lstat, opts)
	if err != nil {
		return nil, err
	}
	return d.journalDir()
}

// journalDir returns the directory that holds the journal: d or its subdirectory
// PrivateName. In the second case it closes d.
func (d *dir) journalDir() (_ Dir, err error) {
	mask, home := othersWrite, d
	defer func() {
		if err != nil {
			home.Close()
		}
	}()
	private, err := d.needsPrivate()
	if err != nil {
		return nil, err
	}
	if private {
		sub, err := d.openPrivate()
		if err != nil {
			return nil, err
		}
		d.Close()
		mask, home = othersAny, sub
	}
	found, err := home.restoreModes(mask)
	if err != nil {
		return nil, err
	}
	if d.opts.Found != nil {
		d.opts.Found(found)
	}
	return home, nil
}

// openPrivate opens the subdirectory PrivateName, made if it is missing, and syncs
// its entry. The caller checks its owner.
func (d *dir) openPrivate() (*dir, error) {
	sub, err := d.openSub(PrivateName)
	if info, failed := d.self.Stat(); errors.Is(err, fs.ErrPermission) && failed == nil && !isOurs(info) {
		return nil, refuseParent(d.path, info)
	}
	if err != nil {
		return nil, err
	}
	if err := d.Sync(); err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// makeAll makes the directory and its missing parents, and syncs the entry of each
// in its parent. It also syncs the entry of an existing directory: the process
// that made it may have been killed before its own sync.
func makeAll(path string) error {
	parent := filepath.Dir(path)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeAll(parent); err != nil {
			return err
		}
		if err := os.Mkdir(path, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return explainMkdir(parent, err)
		}
	} else if err != nil {
		return err
	}
	return syncParent(parent)
}

// explainMkdir adds the fix to a Mkdir error whose cause is the parent directory:
// a read-only volume, or a parent of another user.
func explainMkdir(parent string, err error) error {
	info, failed := os.Lstat(parent)
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount a volume there that can be written (in Kubernetes: an emptyDir or a persistentVolumeClaim)", err)
	case errors.Is(err, fs.ErrPermission) && failed == nil && !isOurs(info):
		return refuseParent(parent, info)
	}
	return err
}

func syncParent(parent string) error {
	f, err := os.Open(parent)
	if errors.Is(err, fs.ErrPermission) {
		return nil // this user may traverse the parent but not open it, so cannot sync it
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

// newDir checks the directory of root, and owns root from then on. It calls lstat
// to check that path still names this directory. An Lstat from before the opening
// proves nothing: another directory may have had the name and even the same inode
// number then.
func newDir(path string, root *os.Root, lstat func() (fs.FileInfo, error), opts Options) (_ *dir, err error) {
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
	named, err := lstat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(named, info) {
		return nil, &RefusedError{path, ErrSymlink, "it was replaced while this process opened it; start again"}
	}
	if d.system, err = fileSystem(d.self); err != nil {
		return nil, fmt.Errorf("file system of %s: %w", path, err)
	}
	if err := checkFileSystem(path, d.system, opts); err != nil {
		return nil, err
	}
	return d, nil
}

// lstatDir returns the result of lstat, and refuses an entry that is not a
// directory.
func lstatDir(path string, lstat func() (fs.FileInfo, error)) (fs.FileInfo, error) {
	info, err := lstat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, &RefusedError{path, ErrSymlink, "set the path to the directory that it points to"}
	case !info.IsDir():
		return nil, &RefusedError{path, ErrNotDirectory, "its mode is " + info.Mode().String()}
	}
	return info, nil
}

func checkFileSystem(path string, system FileSystem, opts Options) error {
	if system.Network && !opts.AllowNetwork {
		return &RefusedError{path, ErrNetwork, system.Name + " does not give the guarantees of a local disk; use a directory on a local disk"}
	}
	return nil
}
