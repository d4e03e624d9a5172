package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given a file with appended and synced bytes, when it is read by the same or another
// handle, then all bytes are there, and only the first handle can append.
func TestFile_AppendSyncRead(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	f := create(t, d, "a", "one")
	for _, part := range []string{"", "two", strings.Repeat("x", 100_000)} {
		if n, err := f.Append([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("Append(%d bytes) = %d, %v", len(part), n, err)
		}
	}
	check(t, f.Sync(), d.Sync())
	want := "onetwo" + strings.Repeat("x", 100_000)
	if got := read(t, f); got != want {
		t.Errorf("the handle that wrote reads %d bytes", len(got))
	}

	again := must(d.Open("a"))(t)
	defer again.Close()
	if got := read(t, again); got != want {
		t.Errorf("another handle reads %d bytes", len(got))
	}
	check(t, again.Sync()) // recovery syncs the files that it read
	if n, err := again.ReadAt(make([]byte, 10), int64(len(want))-4); n != 4 || err != io.EOF {
		t.Errorf("ReadAt at the end = %d, %v; want 4 and a bare io.EOF", n, err)
	}
	if n, err := again.Append([]byte("x")); n != 0 || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Append to an opened file = %d, %v; want fs.ErrPermission", n, err)
	}
}

// Given reserved zeros, when bytes are appended over and past them, then the zeros
// after the bytes remain, and the file has no gap.
func TestReserve_AppendOverZeros(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	f := create(t, d, "a", "one")
	const ahead = 100_000 // more than one write of Reserve
	holds := func(appended string, zeros int) {
		t.Helper()
		if got := read(t, f); got != appended+strings.Repeat("\x00", zeros) {
			t.Fatalf("the file has %d bytes, want %q and %d zeros", len(got), appended, zeros)
		}
		if e := must(d.List())(t)[0]; e.Size != int64(len(appended)+zeros) {
			t.Errorf("List says %d bytes", e.Size)
		}
	}
	check(t, f.Reserve(ahead), f.Sync())
	holds("one", ahead)
	must(f.Append([]byte("two")))(t)
	holds("onetwo", ahead-3)
	check(t, f.Reserve(5))
	holds("onetwo", ahead+2)
	past := strings.Repeat("x", ahead+4)
	must(f.Append([]byte(past)))(t)
	holds("onetwo"+past, 0)
	check(t, f.Reserve(7))
	holds("onetwo"+past, 7)

	again := must(d.Open("a"))(t)
	defer again.Close()
	if err := again.Reserve(1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Reserve in an opened file = %v, want fs.ErrPermission", err)
	}
	for _, n := range []int64{0, -1} {
		if err := f.Reserve(n); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Reserve(%d) = %v, want fs.ErrInvalid", n, err)
		}
	}
}

// Given a writer, when four goroutines read at the same time, then each reads the
// bytes up to the size that it saw.
func TestReadAt_ConcurrentWithAppend(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	f := create(t, d, "a", "0")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			buf := make([]byte, 1)
			for range 200 {
				size, err := f.Size()
				if err != nil {
					t.Error(err)
				}
				if _, err := f.ReadAt(buf, size-1); err != nil || buf[0] != byte('0'+(size-1)%10) {
					t.Errorf("byte %d is %q, %v", size-1, buf, err)
				}
			}
		})
	}
	for i := 1; i < 500; i++ {
		must(f.Append([]byte{byte('0' + i%10)}))(t)
	}
	wg.Wait()
}

// Given an entry, when Create gets its name, then it fails and the entry is unchanged.
func TestCreate_NameExists(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	create(t, d, "a", "mine")
	check(t, os.Mkdir(filepath.Join(path, "dir"), 0o700))
	for _, name := range []string{"a", "dir"} {
		if _, err := d.Create(name); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create(%q) = %v, want fs.ErrExist", name, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(path, "a")); string(got) != "mine" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

// Given a name that is not the plain name of an entry, when any method gets it, then
// the method fails.
func TestDir_RefusesBadNames(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	check(t, os.WriteFile(filepath.Join(filepath.Dir(path), "outside"), nil, 0o600))
	for _, tt := range []struct {
		what, name string
		want       error
	}{
		{"empty", "", fs.ErrInvalid},
		{"the directory", ".", fs.ErrInvalid},
		{"its parent", "..", fs.ErrInvalid},
		{"outside", "../outside", fs.ErrInvalid},
		{"absolute", filepath.Join(path, "a"), fs.ErrInvalid},
		{"below", "corrupt/a", fs.ErrInvalid},
		{"backslash", `corrupt\a`, fs.ErrInvalid},
		{"trailing slash", "a/", fs.ErrInvalid},
		{"NUL", "a\x00b", fs.ErrInvalid},
		{"the lock", vfs.LockName, fs.ErrPermission},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			_, created := d.Create(tt.name)
			_, opened := d.Open(tt.name)
			_, sub := d.Sub(tt.name)
			for op, err := range map[string]error{"Create": created, "Open": opened, "Sub": sub, "Remove": d.Remove(tt.name)} {
				if !errors.Is(err, tt.want) {
					t.Errorf("%s = %v, want %v", op, err, tt.want)
				}
			}
		})
	}
}

// Given entries of all kinds, when they are listed, then all are there, in the order
// of their bytes.
func TestList_AllEntriesInOrder(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	names := []string{"B", "a", "a.b", "a0", "b", strings.Repeat("n", 200), "é", "LOCK"}
	if runtime.GOOS == "linux" {
		names = append(names, "not\xffutf8", "new\nline")
	}
	for i, name := range names {
		check(t, os.WriteFile(filepath.Join(path, name), bytes.Repeat([]byte("x"), i), 0o600))
	}
	check(t, os.Mkdir(filepath.Join(path, "aa"), 0o700))
	list := must(d.List())(t)
	if !slices.IsSortedFunc(list, func(a, b vfs.Entry) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("not in order: %v", list)
	}
	if len(list) != len(names)+1 {
		t.Fatalf("%d names, want %d", len(list), len(names)+1)
	}
	for _, e := range list {
		i := slices.Index(names, e.Name)
		if want := (vfs.Entry{Name: "aa", Type: fs.ModeDir}); i < 0 && e != want || e.Regular() != (i >= 0) {
			t.Errorf("entry %+v, want %+v", e, want)
		} else if i >= 0 && e.Size != int64(i) {
			t.Errorf("%q: %d bytes, want %d", e.Name, e.Size, i)
		}
	}
	if again := must(d.List())(t); !slices.Equal(again, list) {
		t.Errorf("the second time %v", again)
	}
}

// Given an open file and a directory, when both are removed, then the file stays
// readable and the directory is refused.
func TestRemove_OpenFileAndDirectory(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	f := create(t, d, "a", "still readable")
	check(t, d.Remove("a"))
	if got := read(t, f); got != "still readable" {
		t.Errorf("after Remove the handle reads %q", got)
	}
	if err := d.Remove("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("second Remove = %v, want fs.ErrNotExist", err)
	}
	sub := must(d.Sub("corrupt"))(t)
	defer sub.Close()
	if err := d.Remove("corrupt"); !errors.Is(err, vfs.ErrNotRegular) {
		t.Errorf("Remove of a directory = %v, want ErrNotRegular", err)
	}
}

// Given a missing subdirectory, when Sub is called again and again, then it is made
// once and found afterwards; a file of that name is refused.
func TestSub_MadeThenFound(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	for range 2 { // made, then found
		sub := must(d.Sub("corrupt"))(t)
		defer sub.Close()
		check(t, sub.Sync(), d.Sync())
	}
	sub := must(d.Sub("corrupt"))(t)
	defer sub.Close()
	create(t, sub, "a", "x")
	if got, err := os.ReadFile(filepath.Join(path, "corrupt", "a")); string(got) != "x" {
		t.Errorf("the file below holds %q, %v", got, err)
	}
	create(t, d, "file", "")
	if _, err := d.Sub("file"); !errors.Is(err, vfs.ErrNotDirectory) {
		t.Errorf("Sub of a file = %v, want ErrNotDirectory", err)
	}
}

// Given a closed file and directory, when any method is called, then it returns
// fs.ErrClosed.
func TestClose_LaterCallsFail(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	f := create(t, d, "a", "x")
	check(t, f.Close(), d.Close())
	_, appended := f.Append([]byte("x"))
	_, size := f.Size()
	_, readAt := f.ReadAt(make([]byte, 1), 0)
	_, created := d.Create("b")
	_, opened := d.Open("a")
	_, listed := d.List()
	_, sub := d.Sub("corrupt")
	for op, err := range map[string]error{
		"Append": appended, "Reserve": f.Reserve(1), "Size": size, "ReadAt": readAt, "File.Sync": f.Sync(), "File.Close": f.Close(),
		"Create": created, "Open": opened, "List": listed, "Sub": sub, "Remove": d.Remove("a"), "Lock": d.Lock(t.Context()),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s = %v, want fs.ErrClosed", op, err)
		}
	}
	if err := d.Sync(); !errors.Is(err, fs.ErrClosed) && runtime.GOOS != "windows" {
		t.Errorf("Dir.Sync = %v, want fs.ErrClosed", err)
	}
}

// Given failing operations, when their errors are printed, then they name the entry
// and not the directory.
func TestPathError_NamesEntryWithoutDirectory(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	create(t, d, "a", "x")
	_, missing := d.Open("missing")
	_, exists := d.Create("a")
	_, long := d.Create(strings.Repeat("n", 300))
	for _, err := range []error{missing, exists, long, d.Remove("missing")} {
		var pe *fs.PathError
		if !errors.As(err, &pe) || pe.Path == "" || strings.Contains(err.Error(), filepath.Base(filepath.Dir(path))) {
			t.Errorf("error %q (%T)", err, err)
		}
	}
	if want := "open missing: "; !strings.HasPrefix(missing.Error(), want) {
		t.Errorf("error %q, want %q first", missing, want)
	}
}

// Given a directory on a real volume, when Free is called, then it returns a positive
// number, or ErrUnsupported.
func TestFree_RealVolume(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	free, err := d.Free()
	if free <= 0 && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Free = %d, %v", free, err)
	}
}
