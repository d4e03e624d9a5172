package spool_test

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

var writeGolden = flag.Bool("golden", false, "rewrite testdata/v1: only for an unreleased version")

// Given journals written by every released version, then recovery reads them.
func TestRecover_GoldenJournals(t *testing.T) {
	t.Parallel()
	if *writeGolden {
		disk := crashfs.New(1)
		fill(t, disk.Dir())
		entries, err := disk.Dir().List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, _ := disk.ReadFile(e.Name)
			if err := os.WriteFile(filepath.Join("testdata", "v1", e.Name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk := crashfs.New(1)
	names, err := filepath.Glob("testdata/v1/*.journal")
	if err != nil || len(names) == 0 {
		t.Fatalf("no journals: %v", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		disk.Put(filepath.Base(name), 0, b)
	}
	j := openJournal(t, disk.Dir(), "run-2", new(feed))
	got, err := j.Recover(t.Context())
	if err != nil || len(got.Sealed) != 1 || len(got.Unfinished) != 1 || got.TornBytes != 0 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	seg := got.Sealed[0]
	if err := spool.Verify(j, seg); err != nil || seg.Key != "key-1" || seg.Events != 3 || seg.Source != "src" || !seg.Day.Equal(day) {
		t.Errorf("sealed %+v, %v", seg.Header, err)
	}
	if object, err := io.ReadAll(j.Object(seg)); err != nil || len(object) == 0 {
		t.Error(err)
	}
	part := got.Unfinished[0]
	lines, err := part.Blocks[0].Lines()
	if err != nil || strings.Count(string(lines), "\n") != 3 || part.Segment.Key != "key-2" || part.Blocks[0].Block != 4 {
		t.Errorf("partition %+v, lines %q, %v", part, lines, err)
	}
	closeJournal(t, j)
}
