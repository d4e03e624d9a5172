//go:build linux || darwin

package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given a missing directory, when it is opened twice, then it is made with mode 0700
// and its files with 0600.
func TestOpen_MakesDirectory(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	check(t, os.Symlink(parent, filepath.Join(parent, "link")))
	for _, path := range []string{
		filepath.Join(parent, "a"),
		filepath.Join(parent, "b", "c", "d"),
		filepath.Join(parent, "slash") + "/",
		filepath.Join(parent, "link", "e"), // a parent may be a symlink
	} {
		for range 2 { // made, then found
			d := open(t, path)
			if info := must(os.Lstat(path))(t); info.Mode() != fs.ModeDir|0o700 {
				t.Errorf("%s: mode %v, want 0700", path, info.Mode())
			}
			f := create(t, d, fmt.Sprint(len(must(d.List())(t))), "x")
			check(t, f.Sync(), d.Sync())
		}
		if info := must(os.Lstat(filepath.Join(path, "0")))(t); info.Mode() != 0o600 {
			t.Errorf("%s: file mode %v, want 0600", path, info.Mode())
		}
	}
}

// Given a directory opened by a relative path, when the working directory changes,
// then it is still the same directory.
func TestOpen_RelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	d := open(t, "spool")
	t.Chdir("/")
	create(t, d, "a", "x") // it is the directory that counts, not its name
}

// Given a path of a file, FIFO or symlink, when it is opened, then the error names the
// reason.
func TestOpen_NotADirectory(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "file")
		check(t, os.WriteFile(path, nil, 0o700))
		refused(t, path, vfs.ErrNotDirectory)
	})
	t.Run("fifo", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "fifo")
		check(t, syscall.Mkfifo(path, 0o700))
		refused(t, path, vfs.ErrNotDirectory)
	})
	for name, target := range map[string]string{"symlink": ".", "dangling symlink": "nowhere"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "link")
			check(t, os.Symlink(target, path))
			refused(t, path, vfs.ErrSymlink)
			refused(t, path+"/", vfs.ErrSymlink)
		})
	}
}

func refused(t *testing.T, path string, reason error) {
	t.Helper()
	d, err := vfs.Open(path, vfs.Options{})
	if err == nil {
		d.Close()
	}
	if r := (*vfs.RefusedError)(nil); !errors.As(err, &r) || r.Reason != reason || r.Path != filepath.Clean(path) || r.Detail == "" {
		t.Errorf("Open = %v, want a RefusedError with %q", err, reason)
	}
}

// Given a private directory with setgid or sticky bit, when it is opened, then it is
// accepted.
func TestOpen_SpecialModeBits(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o700, 0o700 | fs.ModeSetgid, 0o700 | fs.ModeSticky} {
		path := t.TempDir()
		check(t, os.Chmod(path, mode))
		open(t, path)
	}
}

func TestSub_OpenToOthersOrSymlink(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	check(t, os.Mkdir(filepath.Join(path, "shared"), 0o700), os.Chmod(filepath.Join(path, "shared"), 0o2770))
	sub := must(d.Sub("shared"))(t)
	check(t, sub.Close())
	if mode := modeOf(t, path, "shared"); mode != fs.ModeDir|0o700 {
		t.Errorf("mode of a subdirectory = %v, want 0700", mode)
	}
	check(t, os.Symlink(t.TempDir(), filepath.Join(path, "link")))
	if _, err := d.Sub("link"); !errors.Is(err, vfs.ErrSymlink) {
		t.Errorf("Sub of a symlink = %v, want ErrSymlink", err)
	}
}

// foreign puts one of everything that is not a regular file into a directory.
func foreign(t *testing.T, path string) (names []string) {
	t.Helper()
	at := func(name string) string {
		names = append(names, name)
		return filepath.Join(path, name)
	}
	check(t, os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o600),
		os.Mkdir(at("dir"), 0o700), syscall.Mkfifo(at("fifo"), 0o600),
		os.Symlink("file", at("link")), os.Symlink("/etc/passwd", at("link outside")), os.Symlink("nowhere", at("dangling")),
		os.Symlink("fifo", at("link to fifo")), os.Symlink("loop", at("loop")))

	short := must(os.MkdirTemp("", "vfs"))(t) // the path of a socket is bounded
	defer os.RemoveAll(short)
	socket := must(net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(short, "s"), Net: "unix"}))(t)
	socket.SetUnlinkOnClose(false)
	t.Cleanup(func() { socket.Close() })
	check(t, os.Rename(filepath.Join(short, "s"), at("socket")))

	device := at("device")
	if err := syscall.Mknod(device, syscall.S_IFCHR|0o600, 1<<8|5); err != nil { // like /dev/zero
		t.Log("without a device: ", err)
		names = names[:len(names)-1]
	}
	return names
}

// Given entries of all types, when they are opened, created and listed, then only the
// regular file counts as one.
func TestDir_EntriesNotRegular(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	for _, name := range foreign(t, path) {
		if _, err := d.Open(name); !errors.Is(err, vfs.ErrNotRegular) {
			t.Errorf("Open(%q) = %v, want ErrNotRegular", name, err)
		}
		if _, err := d.Create(name); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create(%q) = %v, want fs.ErrExist", name, err)
		}
	}
	for _, e := range must(d.List())(t) {
		if e.Regular() != (e.Name == "file") || !e.Regular() && e.Size != 0 {
			t.Errorf("entry %+v", e)
		}
	}
	check(t, d.Remove("fifo"), d.Remove("link outside"), d.Remove("socket"))
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
}

// Given a LOCK entry that is not a regular file, when Lock is called, then it is
// refused.
func TestLock_FileNotRegular(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dir", "fifo", "link", "link outside", "dangling", "socket"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, path := spool(t)
			foreign(t, path)
			check(t, os.Rename(filepath.Join(path, name), filepath.Join(path, vfs.LockName)))
			if err := d.Lock(t.Context()); !errors.Is(err, vfs.ErrNotRegular) {
				t.Errorf("Lock = %v, want ErrNotRegular", err)
			}
		})
	}
}

// Given an open directory, when it is moved and a symlink takes its name, then the Dir
// still uses the moved directory.
func TestDir_MovedAway(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	other := filepath.Join(filepath.Dir(path), "other")
	check(t, os.Mkdir(other, 0o700), os.Rename(path, path+".moved"), os.Symlink(other, path))
	create(t, d, "a", "x")
	if left := must(os.ReadDir(other))(t); len(left) != 0 {
		t.Errorf("the directory that took its name has %v", left)
	}
	check(t, os.RemoveAll(path+".moved"))
	if _, err := d.Create("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create in a removed directory = %v, want fs.ErrNotExist", err)
	}
	check(t, d.Sync())
}
