package spool_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// feed is a source of lines for Gather: one block.
type feed struct {
	mu     sync.Mutex
	block  uint64
	lines  []byte
	staged int
}

func (f *feed) add(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line...)
}

func (f *feed) gather(time.Time) ([]spool.Stage, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.staged == len(f.lines) {
		return nil, false
	}
	s := spool.Stage{
		Partition: 1, Block: f.block, Source: "src", Day: day, Offset: int64(f.staged),
		First: day, Last: day, Lines: [][]byte{bytes.Clone(f.lines[f.staged:])}, Release: func() {},
	}
	f.staged = len(f.lines)
	return []spool.Stage{s}, false
}

func openJournal(t testing.TB, dir vfs.Dir, run string, f *feed) *spool.Journal {
	t.Helper()
	j, err := spool.NewJournal(spool.JournalSettings{Dir: dir, RunID: run, Interval: time.Second, Gather: f.gather})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func closeJournal(t testing.TB, j *spool.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func segment(run string, n uint64) *spool.Segment {
	return spool.NewSegment(spool.Header{
		RunID: run, Sequence: n, Bucket: "b", Key: fmt.Sprintf("key-%d", n), Source: "src", Day: day, Opened: day,
		ContentType: "application/gzip",
	})
}

func appendFrame(t testing.TB, j *spool.Journal, seg *spool.Segment, block uint64, lines string) {
	t.Helper()
	f := frame(t, lines, day)
	f.Partition, f.Block = 1, block
	if err := j.Append(seg, f); err != nil {
		t.Fatal(err)
	}
}

// fill leaves a sealed segment, an open one, and a block without a frame. It
// returns the object of the first.
func fill(t testing.TB, dir vfs.Dir) []byte {
	t.Helper()
	f := &feed{block: 4}
	j := openJournal(t, dir, "run-1", f)
	seg := segment("run-1", 1)
	for i := range 3 {
		appendFrame(t, j, seg, uint64(i), fmt.Sprintf("{\"n\":%d}\n", i))
	}
	sealed := make(chan struct{})
	j.Seal(seg, func() { close(sealed) })
	<-sealed
	object, err := io.ReadAll(j.Object(seg))
	if err != nil || int64(len(object)) != seg.Size() {
		t.Fatalf("%d bytes of %d: %v", len(object), seg.Size(), err)
	}
	appendFrame(t, j, segment("run-1", 2), 3, "{\"n\":3}\n")
	for _, lines := range []string{"{\"n\":4}\n{\"n\":5}\n", "{\"n\":6}\n"} {
		f.add(lines)
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	closeJournal(t, j)
	return object
}

// Given a sealed segment, an open one and a block without a frame, when the
// process restarts twice, then the last run recovers and delivers all three.
func TestRecover_UndeliveredDataAfterRestarts(t *testing.T) {
	t.Parallel()
	dir, err := vfs.Open(t.TempDir()+"/spool", vfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	object := fill(t, dir)
	for run := range 3 {
		j := openJournal(t, dir, fmt.Sprint("run-", run+2), new(feed))
		got, err := j.Recover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Sealed) != 1 || len(got.Unfinished) != 1 || got.TornBytes != 0 || len(got.DamagedFiles)+len(got.UnknownVersion) != 0 {
			t.Fatalf("recovered %+v", got)
		}
		seg := got.Sealed[0]
		if again, err := io.ReadAll(j.Object(seg)); err != nil || !bytes.Equal(object, again) || seg.Key != "key-1" || seg.Events != 3 || seg.ContentType != "application/gzip" {
			t.Errorf("the object has changed: %+v, %v", seg.Header, err)
		}
		part := got.Unfinished[0]
		if part.Segment == nil || part.Segment.Key != "key-2" || part.Segment.Events != 1 || len(part.Blocks) != 1 {
			t.Fatalf("partition %+v", part)
		}
		if lines, err := part.Blocks[0].Lines(); err != nil || string(lines) != "{\"n\":4}\n{\"n\":5}\n{\"n\":6}\n" {
			t.Errorf("lines %q: %v", lines, err)
		}
		closeJournal(t, j)
	}
}

// Given delivered segments, when the journal is closed, then no file is left.
func TestClose_NoFileAfterDelivery(t *testing.T) {
	t.Parallel()
	dir := crashfs.New(1).Dir()
	fill(t, dir)
	j := openJournal(t, dir, "run-2", new(feed))
	got, err := j.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := got.Unfinished[0].Segment
	lines, err := got.Unfinished[0].Blocks[0].Lines()
	if err != nil {
		t.Fatal(err)
	}
	f := frame(t, string(lines), day)
	f.Run, f.Partition, f.Block = got.Unfinished[0].Blocks[0].Run, 1, 4
	if err := j.Append(open, f); err != nil {
		t.Fatal(err)
	}
	sealed := make(chan struct{})
	j.Seal(open, func() { close(sealed) })
	<-sealed
	j.Remove(got.Sealed[0])
	j.Remove(open)
	closeJournal(t, j)
	if left, err := dir.List(); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Given foreign files and files of a later version, then recovery neither reads
// nor removes them.
func TestRecover_ForeignFilesUntouched(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	fill(t, disk.Dir())
	entries, err := disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	bytesOf, _ := disk.ReadFile(entries[0].Name)
	later := slices.Clone(bytesOf)
	later[8] = 2 // version; the checksum is recomputed
	spool.FixHeader(later)
	disk.Put("0000000000000000-00000000.journal", 0, later)
	disk.Put("0000000000000009-00000000.journal", 0, later)
	disk.Put("notes.txt", 0, []byte("mine"))
	j := openJournal(t, disk.Dir(), "run-2", new(feed))
	got, err := j.Recover(t.Context())
	if err != nil || len(got.UnknownVersion) != 2 || len(got.Sealed) != 1 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	closeJournal(t, j)
	for name, want := range map[string][]byte{"0000000000000000-00000000.journal": later, "0000000000000009-00000000.journal": later, "notes.txt": []byte("mine")} {
		if is, ok := disk.ReadFile(name); !ok || !bytes.Equal(is, want) {
			t.Errorf("%s has changed", name)
		}
	}
}

// Given a flipped bit in a fsynced file, then recovery reports the damage and
// delivers no damaged object.
func TestRecover_FlippedBits(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	fill(t, disk.Dir())
	j := openJournal(t, disk.Dir(), "run-2", &feed{block: 9, lines: []byte("{}\n")}) // so that the first file is not the last
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	entries, err := disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	var damaged []string
	for i := range 400 {
		copied := disk.Kill()
		name := entries[i%len(entries)].Name
		b, _ := copied.ReadFile(name)
		b = slices.Clone(b)
		b[(i*37)%len(b)] ^= 1 << (i % 8) // 37 is prime to most lengths
		copied.Put(name, 0, b)
		j := openJournal(t, copied.Dir(), "run-3", new(feed))
		got, err := j.Recover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		damaged = append(damaged, got.DamagedFiles...)
		for _, seg := range got.Sealed {
			if _, err := io.ReadAll(j.Object(seg)); err != nil {
				t.Errorf("flip %d: %v", i, err)
			}
			if err := spool.Verify(j, seg); err != nil {
				t.Errorf("flip %d: a damaged object was recovered: %v", i, err)
			}
		}
		closeJournal(t, j)
	}
	if len(damaged) == 0 {
		t.Error("no damage was reported")
	}
}

// Given any failing operation, when a commit fails, then the same records go to
// a new file and are recovered.
func TestCommit_RetriesInNewFile(t *testing.T) {
	t.Parallel()
	for _, kind := range crashfs.Kinds() {
		for n := range 12 {
			disk := crashfs.New(1)
			disk.FailAt(n, kind)
			f := &feed{block: 1}
			j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: "run-1", Interval: time.Hour, Gather: f.gather})
			if err != nil {
				continue // NewJournal reports the error
			}
			f.add("{}\n")
			if err := j.Commit(t.Context()); err != nil {
				t.Errorf("%v at %d: %v", kind, n, err)
			}
			j.Close()
		}
	}
}

// Given a full disk, when it has room again, then the failed commit's records
// are written and nothing is lost.
func TestCommit_FullDisk(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	full := errors.New("full")
	disk.Inject(func(op crashfs.Op) error {
		if op.Call == crashfs.CallAppend {
			return full
		}
		return nil
	})
	f := &feed{block: 4}
	j := openJournal(t, disk.Dir(), "run-1", f)
	f.add("{\"n\":1}\n")
	for range 3 {
		if err := j.Commit(t.Context()); !errors.Is(err, full) || !errors.Is(j.Err(), full) {
			t.Errorf("commit: %v, Err: %v", err, j.Err())
		}
	}
	disk.Inject(nil)
	f.add("{\"n\":2}\n")
	if err := j.Commit(t.Context()); err != nil || j.Err() != nil {
		t.Errorf("commit: %v, Err: %v", err, j.Err())
	}
	closeJournal(t, j)
	j = openJournal(t, disk.Dir(), "run-2", new(feed))
	got, err := j.Recover(t.Context())
	if err != nil || len(got.Unfinished) != 1 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	if lines, err := got.Unfinished[0].Blocks[0].Lines(); err != nil || string(lines) != "{\"n\":1}\n{\"n\":2}\n" {
		t.Errorf("lines %q: %v", lines, err)
	}
	closeJournal(t, j)
}

// Given any file content, then recovery neither panics nor returns more lines
// than the file has bytes.
func FuzzRecover(f *testing.F) {
	disk := crashfs.New(1)
	fill(f, disk.Dir())
	entries, err := disk.Dir().List()
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		b, _ := disk.ReadFile(e.Name)
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := crashfs.New(1)
		disk.Put("0000000000000001-00000000.journal", 0, b)
		j := openJournal(t, disk.Dir(), "run-2", new(feed))
		got, err := j.Recover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, seg := range got.Sealed {
			if err := spool.Verify(j, seg); err != nil {
				t.Skip(err) // the fuzzer computed valid checksums
			}
		}
		for _, part := range got.Unfinished {
			for _, left := range part.Blocks {
				if _, _, err := left.Frame(); err != nil && !errors.Is(err, spool.ErrDamaged) {
					t.Fatal(err)
				}
				if lines, err := left.Lines(); err != nil || len(lines) > len(b) {
					t.Fatalf("%d bytes of lines in %d, %v", len(lines), len(b), err)
				}
			}
		}
		closeJournal(t, j)
	})
}

// Given a record of another file, or one with a changed type, then recovery
// ignores it.
func TestRecover_RecordsOfAnotherFile(t *testing.T) {
	t.Parallel()
	written := func(seed uint64) (string, []byte) {
		disk := crashfs.New(seed)
		fill(t, disk.Dir())
		entries, err := disk.Dir().List()
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		data, _ := disk.ReadFile(entries[0].Name)
		return entries[0].Name, data
	}
	name, data := written(1)
	_, other := written(2)
	const header = 36
	stale := append(bytes.Clone(data[:header]), other[header:]...)
	kind := bytes.Clone(data)
	for at := header; at < len(kind); at += 16 + int(binary.LittleEndian.Uint32(kind[at+4:])) {
		if kind[at] == 4 { // a seal would become a "delivered" record
			kind[at]++
		}
	}
	for what, data := range map[string][]byte{"another file's records": stale, "another type": kind} {
		disk := crashfs.New(3)
		disk.Put(name, 0, data)
		j := openJournal(t, disk.Dir(), "run-2", new(feed))
		found, err := j.Recover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Sealed) > 0 || found.TornBytes == 0 && len(found.DamagedFiles) == 0 {
			t.Errorf("%s: %+v", what, found)
		}
		j.Close()
	}
}

// Given a block whose first line was torn by a crash, when ReleaseTorn is
// called, then its file is removed.
func TestRecover_TornFirstLine(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	f := &feed{block: 1}
	j := openJournal(t, disk.Dir(), "run-1", f)
	f.add("{\"a line that is longer than")
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	for run := range 2 {
		j = openJournal(t, disk.Dir(), fmt.Sprint("run-", run+2), new(feed))
		got, err := j.Recover(t.Context())
		if err != nil || len(got.Unfinished) != 1-run {
			t.Fatalf("run %d: recovered %+v, %v", run, got, err)
		}
		for _, part := range got.Unfinished {
			if lines, err := part.Blocks[0].Lines(); err != nil || len(lines) > 0 {
				t.Errorf("lines %q, %v", lines, err)
			}
			j.ReleaseTorn(&part.Blocks[0])
		}
		closeJournal(t, j)
	}
	if left, err := disk.Dir().List(); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Given lines in several chunks, then they are staged as one record up to
// maxStage, and recovered in order.
func TestStage_SeveralChunks(t *testing.T) {
	t.Parallel()
	dir := crashfs.New(1).Dir()
	var lines [][]byte
	var want []byte
	for i := range 700 { // 2.8 MB
		chunk := bytes.Repeat([]byte{byte('a' + i%26)}, 4<<10)
		chunk[len(chunk)-1] = '\n'
		lines = append(lines, chunk)
		want = append(want, chunk...)
	}
	given := false
	j, err := spool.NewJournal(spool.JournalSettings{Dir: dir, RunID: "run-1", Interval: time.Hour, Gather: func(time.Time) ([]spool.Stage, bool) {
		if given {
			return nil, false
		}
		given = true
		return []spool.Stage{{Partition: 1, Block: 1, Source: "src", Day: day, First: day, Last: day, Lines: lines, Release: func() {}}}, false
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	j = openJournal(t, dir, "run-2", new(feed))
	got, err := j.Recover(t.Context())
	if err != nil || len(got.Unfinished) != 1 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	if lines, err := got.Unfinished[0].Blocks[0].Lines(); err != nil || !bytes.Equal(lines, want) {
		t.Errorf("%d bytes of %d, %v", len(lines), len(want), err)
	}
	closeJournal(t, j)
}
