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
	// means that none has.
	JournalFile func(name string) bool

	// Found, if not nil, is called by an Open that succeeds.
	Found func(Found)
}

// Open opens a directory for this process alone. A missing one is made, with
// its parents, mode 0700, and is on disk when Open returns. The directory must be
// a directory and not a symlink to one (its parents may be symlinks), and not on a
// network file system.
//
// A directory holds the journal itself if it belongs to the effective user and no
// other user may write it. A directory with a journal of this user holds it too:
// Open sets the directory's mode to 0700 if other users may write it, and the
// files' modes to 0600. Any other directory gets a subdirectory for the journal, [PrivateName],
// which is used from then on. It must belong to the effective user, and its mode
// is set to 0700.
//
// A directory with a journal of another user is a [*RefusedError]: no process
// would deliver the events in it.
func Open(path string, opts Options) (Dir, error) {
	if path == "" {
		return nil, fail("open", path, fs.ErrInvalid)
	}
	path = filepath.Clean(path) // a trailing slash would follow a symlink
	if err := makeAll(path); err != nil {
		return nil, err
	}
	look := func() (fs.FileInfo, error) { return os.Lstat(path) }
	info, err := lookAt(path, look)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path + string(filepath.Separator) + ".") // the dot: never to wait for a FIFO
	if errors.Is(err, fs.ErrPermission) && !isOurs(info) {
		return nil, refuseOwner(path, info)
	}
	if err != nil {
		return nil, err
	}
	d, err := newDir(path, root, look, opts)
	if err != nil {
		return nil, err
	}
	return d.settle()
}

// settle returns the directory that holds the journal: d, or the subdirectory
// PrivateName, and then d is closed.
func (d *dir) settle() (_ Dir, err error) {
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

// openPrivate opens the subdirectory PrivateName, which is on disk when it
// returns. The caller checks its owner.
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

// makeAll makes the directory and the parents it lacks, and syncs the entry of
// each in its parent. It does the last also for a directory that exists:
// whoever made it may have been killed just then.
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

// explainMkdir says what to do about an error of a directory that others have made
// for this process.
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
func newDir(path string, root *os.Root, look func() (fs.FileInfo, error), opts Options) (_ *dir, err error) {
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
	if d.system, err = fileSystem(d.self); err != nil {
		return nil, fmt.Errorf("file system of %s: %w", path, err)
	}
	if err := checkFileSystem(path, d.system, opts); err != nil {
		return nil, err
	}
	return d, nil
}

// lookAt refuses whatever is not a directory.
func lookAt(path string, look func() (fs.FileInfo, error)) (fs.FileInfo, error) {
	info, err := look()
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, &RefusedError{path, ErrSymlink, "name the directory that it points to"}
	case !info.IsDir():
		return nil, &RefusedError{path, ErrNotDirectory, "its mode is " + info.Mode().String()}
	}
	return info, nil
}

func checkFileSystem(path string, system FileSystem, opts Options) error {
	if system.Network && !opts.AllowNetwork {
		return &RefusedError{path, ErrNetwork, system.Name + " cannot promise what a local disk does"}
	}
	return nil
}
