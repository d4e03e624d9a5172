package vfs_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

func open(t *testing.T, path string) vfs.Dir {
	t.Helper()
	d, err := vfs.Open(path, vfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestAppendSyncAndReadBack(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "new", "spool"))
	f, err := d.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, part := range []string{"one", "", "two"} {
		if n, err := f.Append([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("Append(%q) = %d, %v", part, n, err)
		}
	}
	if err := errors.Join(f.Sync(), d.Sync()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create = %v, want fs.ErrExist", err)
	}
	again, err := d.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	got := make([]byte, 6)
	if n, err := again.ReadAt(got, 0); n != 6 || string(got) != "onetwo" {
		t.Errorf("ReadAt = %q, %v", got[:n], err)
	}
}

func TestLockKeepsASecondDirOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	first, second := open(t, path), open(t, path)
	if err := first.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second.Lock(ctx); !errors.Is(err, vfs.ErrLocked) || !errors.Is(err, context.Canceled) {
		t.Errorf("second Lock = %v, want ErrLocked and context.Canceled", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Lock(t.Context()); err != nil {
		t.Errorf("Lock after the first Dir was closed = %v", err)
	}
}
