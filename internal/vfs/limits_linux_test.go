package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// ownMounts gives a child process a private mount namespace: as root, or, if the
// kernel allows it, as root of a user namespace.
func ownMounts() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mount")
	check(t, os.Mkdir(path, 0o700))
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=0700,"+options); err != nil {
		t.Skip("this process may not mount: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
	return path
}

// Given a full disk, when bytes are appended, then Append returns the written part and
// ENOSPC, and works again after a removal.
func TestAppend_FullDisk(t *testing.T) {
	t.Parallel()
	if !inChild(t, ownMounts()) {
		return
	}
	d := open(t, mountTmpfs(t, "size=256k"))
	if got, want := d.FileSystem(), (vfs.FileSystem{Name: "tmpfs", Volatile: true}); got != want {
		t.Errorf("FileSystem = %+v, want %+v", got, want)
	}
	f := create(t, d, "a", "first")
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	n, err := f.Append(data)
	if !errors.Is(err, syscall.ENOSPC) || n == 0 || n >= len(data) {
		t.Fatalf("Append to a full disk = %d, %v; want a part and ENOSPC", n, err)
	}
	if want := "append a: no space left on device"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if got := read(t, f); got != "first"+string(data[:n]) {
		t.Errorf("the file has %d bytes, not those %d that were written", len(got), n)
	}
	other := create(t, d, "b", "")
	if n, err := other.Append([]byte("x")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append to the next file = %d, %v; want 0 and ENOSPC", n, err)
	}
	check(t, f.Close(), d.Remove("a"))
	must(other.Append([]byte("x")))(t)
	check(t, other.Sync(), d.Sync())
}

// Given a nearly full disk, when Reserve fails, then Append over the written zeros
// works, and a later Reserve leaves no hole.
func TestReserve_FullDisk(t *testing.T) {
	t.Parallel()
	if !inChild(t, ownMounts()) {
		return
	}
	d := open(t, mountTmpfs(t, "size=256k"))
	f := create(t, d, "a", "first")
	other := create(t, d, "b", strings.Repeat("x", 100_000))
	err := f.Reserve(1 << 20)
	if want := "reserve a: no space left on device"; !errors.Is(err, syscall.ENOSPC) || err.Error() != want {
		t.Errorf("Reserve on a full disk = %v, want %q", err, want)
	}
	must(f.Append([]byte("second")))(t) // over the zeros that were written
	check(t, f.Sync(), other.Close(), d.Remove("b"))
	check(t, f.Reserve(5000)) // leaves no hole after them
	if got := read(t, f); strings.TrimRight(got, "\x00") != "firstsecond" || len(got) < 5000 || len(got) > 256<<10 {
		t.Errorf("the file has %d bytes, first %q", len(got), got[:20])
	}
}

// Given a file system without free inodes, when a file is created, then the error is
// ENOSPC.
func TestCreate_NoInodes(t *testing.T) {
	t.Parallel()
	if !inChild(t, ownMounts()) {
		return
	}
	d := open(t, mountTmpfs(t, "nr_inodes=3"))
	var err error
	for i := 0; err == nil; i++ {
		_, err = d.Create(fmt.Sprint(i))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Create = %v, want ENOSPC", err)
	}
}

// Given a read-only file system, when files are read and written, then reading works
// and writing returns EROFS.
func TestDir_ReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	if !inChild(t, ownMounts()) {
		return
	}
	path := mountTmpfs(t, "size=256k")
	d := open(t, path)
	check(t, create(t, d, "a", "x").Close(), d.Lock(t.Context()), d.Close())
	check(t, syscall.Mount("", path, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

	d = open(t, path)
	f := must(d.Open("a"))(t)
	if got := read(t, f); got != "x" {
		t.Errorf("the file holds %q", got)
	}
	check(t, f.Close())
	_, created := d.Create("b")
	_, sub := d.Sub("corrupt")
	_, below := vfs.Open(filepath.Join(path, "spool"), vfs.Options{})
	for op, err := range map[string]error{"Create": created, "Sub": sub, "Remove": d.Remove("a"), "Lock": d.Lock(t.Context()), "vfs.Open": below} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s = %v, want EROFS", op, err)
		}
	}
	check(t, d.Close(), syscall.Mount("", path, "", syscall.MS_REMOUNT, ""))
	d = open(t, path)
	check(t, d.Lock(t.Context()), d.Remove("a"))
}

// Given a limit on the size of files, when Append and Reserve pass it, then they
// return EFBIG and keep the written part.
func TestFile_SizeLimit(t *testing.T) {
	t.Parallel()
	if !inChild(t, nil) {
		return
	}
	d, _ := spool(t)
	f := create(t, d, "a", "")
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10_000, Max: 10_000}))
	n, err := f.Append(make([]byte, 25_000))
	if n != 10_000 || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Append = %d, %v; want 10000 and EFBIG", n, err)
	}
	if n, err := f.Append([]byte("x")); n != 0 || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("then %d, %v; want 0 and EFBIG", n, err)
	}

	b := create(t, d, "b", "first")
	for range 2 { // a part is written, then nothing
		if err := b.Reserve(25_000); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("Reserve = %v, want EFBIG", err)
		}
	}
	must(b.Append([]byte("second")))(t)
	if got := read(t, b); len(got) != 10_000 || strings.TrimRight(got, "\x00") != "firstsecond" {
		t.Errorf("the file has %d bytes, first %q", len(got), got[:20])
	}
}

// Given a process without free descriptors, when entries are opened, then the error is
// EMFILE, and open files still work.
func TestDir_DescriptorLimit(t *testing.T) {
	t.Parallel()
	if !inChild(t, nil) {
		return
	}
	d, _ := spool(t)
	f := create(t, d, "a", "x")
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 40, Max: 40}))
	var err error
	var last vfs.File
	for i := 0; err == nil; i++ {
		var next vfs.File
		if next, err = d.Create(fmt.Sprint(i)); err == nil {
			last = next
		}
	}
	_, opened := d.Open("a")
	_, listed := d.List()
	for op, err := range map[string]error{"Create": err, "Open": opened, "List": listed, "Lock": d.Lock(t.Context())} {
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%s = %v, want EMFILE", op, err)
		}
	}
	must(f.Append([]byte("y")))(t) // open files still work
	check(t, f.Sync(), d.Sync(), d.Remove("0"))
	check(t, last.Close(), create(t, d, "b", "x").Close())
}
