//go:build linux || darwin

package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Given a system call that returns EINTR twice, when control makes it, then it is
// made three times.
func TestControl_RepeatsAfterSignal(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls := 0
	err = control(f, func(int) error {
		if calls++; calls < 3 {
			return syscall.EINTR
		}
		return syscall.EIO
	})
	if calls != 3 || err != syscall.EIO {
		t.Errorf("%d calls, %v; want 3 and EIO", calls, err)
	}
}

// Given an operator who deletes the LOCK file between its opening and locking, when
// the file is checked, then its lock does not count.
func TestLock_FileDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	d, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.openLock()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(tryLock(f), d.checkLock(f)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, LockName)); err != nil {
		t.Fatal(err)
	}
	if err := d.checkLock(f); err != errHeld {
		t.Errorf("without a lock file: %v, want errHeld", err)
	}
	if err := d.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.checkLock(f); err != errHeld {
		t.Errorf("with another lock file: %v, want errHeld", err)
	}
}

// Given an entry that another process replaces after the Lstat, when it is opened,
// then it is refused.
func TestOpenVerified_EntryReplaced(t *testing.T) {
	t.Parallel()
	for what, replace := range map[string]func(path string) error{
		"removed":        os.Remove,
		"a fifo":         func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		"a symlink":      func(path string) error { return errors.Join(os.Remove(path), os.Symlink("other", path)) },
		"a link outside": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"a directory":    func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "spool")
			d, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, name := range []string{"a", "other"} {
				if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := replace(filepath.Join(path, "a")); err != nil {
				t.Fatal(err)
			}
			if f, err := d.openVerified("a", openFlags); err == nil {
				f.Close()
				t.Error("the replaced entry was opened")
			}
		})
	}
}

func open(path string) (*dir, error) {
	opened, err := Open(path, Options{})
	if err != nil {
		return nil, err
	}
	return opened.(*dir), nil
}

// Given a directory that is replaced while it is opened, when newDir checks it, then
// it is refused.
func TestNewDir_DirectoryReplaced(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(parent, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]error{"a": nil, "b": ErrSymlink, "c": fs.ErrNotExist} {
		root, err := os.OpenRoot(filepath.Join(parent, "a"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := newDir("a", root, func() (fs.FileInfo, error) { return os.Lstat(filepath.Join(parent, name)) }, Options{})
		if !errors.Is(err, want) {
			t.Errorf("the name refers to %s now: %v, want %v", name, err, want)
		}
		if err == nil {
			d.Close()
		}
	}
}
