package vfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given several processes that set notes in turn, when a crash tears the write of
// a note after any number of bytes, then the previous note is read.
func TestNote_OutlivesHoldersAndTornWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	lock := filepath.Join(path, vfs.LockName)
	set := func(notes ...string) {
		t.Helper()
		d := open(t, path)
		check(t, d.Lock(t.Context()))
		for _, note := range notes {
			check(t, d.SetNote([]byte(note)))
		}
		check(t, d.Close())
	}
	read := func() string {
		t.Helper()
		d := open(t, path)
		check(t, d.Lock(t.Context()))
		note := must(d.Note())(t)
		check(t, d.Close())
		return string(note)
	}
	for _, want := range []string{"first", "", "a third one", "fourth"} {
		set("another", want)
		if got := read(); got != want {
			t.Errorf("note %q, want %q", got, want)
		}
		before := must(os.ReadFile(lock))(t)
		set("torn")
		after := must(os.ReadFile(lock))(t)
		if got := read(); got != "torn" {
			t.Errorf("note %q, want the one that was set last", got)
		}
		for cut := range changed(before, after) {
			check(t, os.WriteFile(lock, torn(before, after, cut), 0o600))
			if got := read(); got != want {
				t.Errorf("after %d bytes of another note: note %q, want %q", cut, got, want)
			}
		}
	}
}

// Given a directory without the lock, then Note and SetNote fail. Given the lock,
// then SetNote fails for a note longer than MaxNote.
func TestNote_Errors(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "spool"))
	if _, err := d.Note(); err == nil {
		t.Error("Note works without the lock")
	}
	if err := d.SetNote(nil); err == nil {
		t.Error("SetNote works without the lock")
	}
	check(t, d.Lock(t.Context()))
	if err := d.SetNote(make([]byte, vfs.MaxNote+1)); err == nil {
		t.Error("SetNote accepts a note that is too long")
	}
	check(t, d.SetNote(make([]byte, vfs.MaxNote)))
	check(t, d.Close())
}

// changed returns the length of the range that a write changed, from the first
// changed byte to the last.
func changed(before, after []byte) int {
	last := len(after)
	for last > 0 && last <= len(before) && before[last-1] == after[last-1] {
		last--
	}
	return last - firstChange(before, after)
}

// torn returns the contents of a file after a torn write: only the first bytes of
// the changed range are written.
func torn(before, after []byte, bytes int) []byte {
	cut := firstChange(before, after) + bytes
	rest := make([]byte, max(0, len(before)-cut))
	copy(rest, before[min(cut, len(before)):])
	return append(after[:cut:cut], rest...)
}

func firstChange(before, after []byte) int {
	n := 0
	for n < min(len(before), len(after)) && before[n] == after[n] {
		n++
	}
	return n
}
