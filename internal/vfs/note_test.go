package vfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given notes of several holders, one of which was torn by a crash: the last whole
// one is read, and the record of the holder beside it.
func TestNote_OutlivesHoldersAndTornWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	want := ""
	for _, next := range []string{"first", "", "a third one", "fourth"} {
		d := open(t, path)
		if _, err := d.Note(); err == nil {
			t.Error("Note without the lock")
		}
		check(t, d.Lock(t.Context()))
		for _, note := range []string{want, next} {
			check(t, d.SetNote([]byte(note)))
			if got := must(d.Note())(t); string(got) != note {
				t.Errorf("note %q, want %q", got, note)
			}
		}
		if err := d.SetNote(make([]byte, vfs.MaxNote+1)); err == nil {
			t.Error("SetNote takes a note that is too long")
		}
		want = next
		check(t, d.Close())
		tear(t, filepath.Join(path, vfs.LockName))
		d = open(t, path)
		check(t, d.Lock(t.Context()))
		if got := must(d.Note())(t); string(got) != want {
			t.Errorf("another one was torn: note %q, want %q", got, want)
		}
		check(t, d.Close())
	}
}

// tear begins the write of another note, which a crash cuts: it goes to the place
// where the last one is not.
func tear(t *testing.T, lock string) {
	t.Helper()
	b := must(os.ReadFile(lock))(t)
	f := must(os.OpenFile(lock, os.O_RDWR, 0))(t)
	defer f.Close()
	newest, at := byte(0), int64(0)
	for _, place := range []int64{2048, 2560} {
		if int(place) < len(b) && b[place] > newest {
			newest, at = b[place], 2048+2560-place
		}
	}
	must(f.WriteAt([]byte{newest + 1, 0, 0, 0, 0, 0, 0, 0, 3, 'b'}, at))(t)
}
