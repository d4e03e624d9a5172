package spool_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// filled returns a disk after fill, with the name and the bytes of its first
// file, which is not the last.
func filled(t *testing.T) (disk *crashfs.FS, name string, data []byte) {
	t.Helper()
	disk = crashfs.New(1)
	fill(t, disk.Dir())
	entries, err := disk.Dir().List()
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	j := openJournal(t, disk.Dir(), "run-2", &feed{block: 9, lines: []byte("{}\n")})
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	data, _ = disk.ReadFile(entries[0].Name)
	return disk, entries[0].Name, data
}

// recovered opens the disk's journal in another run, and recovers it.
func recovered(t *testing.T, disk *crashfs.FS) (*spool.Journal, *spool.Recovered) {
	t.Helper()
	j := openJournal(t, disk.Dir(), "run-3", new(feed))
	found, err := j.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return j, found
}

// eventsOf returns the number of lines that can be delivered.
func eventsOf(t *testing.T, found *spool.Recovered) (n int64) {
	t.Helper()
	for _, seg := range found.Sealed {
		n += seg.Events
	}
	for _, tail := range found.Unfinished {
		if tail.Segment != nil {
			n += tail.Segment.Events
		}
		for _, b := range tail.Blocks {
			f, framed, err := b.Frame()
			if err != nil {
				t.Fatal(err)
			}
			if n += f.Events; framed {
				continue
			}
			lines, err := b.Lines()
			if err != nil {
				t.Fatal(err)
			}
			n += int64(bytes.Count(lines, []byte("\n")))
		}
	}
	return n
}

// Given a file with a damaged header, then recovery takes the salt from the
// name and loses no event. Given a file of an earlier version whose name has
// another salt, then it is copied whole.
func TestRecover_LostHeader(t *testing.T) {
	t.Parallel()
	disk, name, data := filled(t)
	headless := bytes.Clone(data)
	clear(headless[:36])
	disk.Put(name, 0, headless)
	j, found := recovered(t, disk.Kill())
	if n := eventsOf(t, found); n != 8 || !slices.Equal(found.DamagedFiles, []string{name}) || found.DamagedBytes != 36 || found.CopiedBytes != 0 {
		t.Errorf("%d events, want 8; %+v", n, found)
	}
	closeJournal(t, j)

	golden, err := filepath.Glob("testdata/v1/*.journal")
	if err != nil || len(golden) == 0 {
		t.Fatal(golden, err)
	}
	old, err := os.ReadFile(golden[0])
	if err != nil {
		t.Fatal(err)
	}
	clear(old[:36])
	disk = disk.Kill()
	disk.Put("0000000000000000-00112233.journal", 0, old)
	disk.Put(name, 0, data)
	disk = disk.Kill()
	j, found = recovered(t, disk)
	closeJournal(t, j)
	kept, _ := disk.ReadFile("corrupt/0000000000000000-00112233.journal-0.bin")
	if n := eventsOf(t, found); n != 8 || !bytes.Equal(kept, old) || found.CopiedBytes != int64(len(old)) {
		t.Errorf("%d events, want 8; %d bytes kept of %d; %+v", n, len(kept), len(old), found)
	}
}

// Given preallocated zeros after the last record, then recovery reports neither
// torn nor damaged bytes.
func TestRecover_PreallocatedZeros(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	fill(t, disk.Dir())
	entries, _ := disk.Dir().List()
	data, _ := disk.ReadFile(entries[0].Name)
	for tail, torn := range map[string]int64{"": 0, "\x00\x00x": 3} {
		padded := append(bytes.Clone(data), tail...)
		disk = disk.Kill()
		disk.Put(entries[0].Name, 0, append(padded, make([]byte, 1<<20)...))
		for range 2 { // also when another file follows
			disk = disk.Kill()
			j, found := recovered(t, disk)
			if n := eventsOf(t, found); n != 7 || found.TornBytes != torn || len(found.DamagedFiles) > 0 {
				t.Errorf("tail %q: %d events, %+v", tail, n, found)
			}
			closeJournal(t, j)
		}
	}
}

// Given a block with a damaged stage, then the whole lines before and after the
// gap are delivered. A long stage may begin within a line.
func TestLines_DamagedStage(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	f := &feed{block: 1}
	j := openJournal(t, disk.Dir(), "run-1", f)
	var want []string
	for n := range 3001 { // 3 stages, and one whose group shows that they are on disk
		want = append(want, fmt.Sprintf("{\"n\":%d,\"in\":{\"pad\":%q}}\n", n, strings.Repeat("}", n%2000)))
		if f.add(want[n]); n < 2999 {
			continue
		}
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	closeJournal(t, j)
	closeJournal(t, openJournal(t, disk.Dir(), "run-2", &feed{block: 2, lines: []byte("{}\n")}))
	entries, _ := disk.Dir().List()
	data, _ := disk.ReadFile(entries[0].Name)
	var stages []spool.Parsed
	for _, r := range spool.ParseRecords(data) {
		if r.Kind == "stage" {
			stages = append(stages, r)
		}
	}
	for i, r := range stages[:3] {
		hurt := bytes.Clone(data)
		hurt[r.To-1] ^= 1
		disk := disk.Kill()
		disk.Put(entries[0].Name, 0, hurt)
		j, found := recovered(t, disk)
		lines, err := found.Unfinished[0].Blocks[0].Lines()
		if err != nil {
			t.Fatal(err)
		}
		next, lost := 0, 0
		for l := range strings.Lines(string(lines)) {
			for ; next < len(want) && want[next] != l; next++ {
				lost += len(want[next])
			}
			next++
		}
		if next != len(want) || lost < len(r.Data) || lost > len(r.Data)+2*2100 {
			t.Errorf("stage %d: %d lines of %d in order, %d bytes are lost of one of %d", i+1, next, len(want), lost, len(r.Data))
		}
		closeJournal(t, j)
	}
}

// Given frames whose source is lost, then they are copied as a partial object,
// and counted as quarantined.
func TestRecover_FramesWithoutSource(t *testing.T) {
	t.Parallel()
	disk, name, data := filled(t)
	for _, r := range spool.ParseRecords(data) {
		if r.Kind == "frame" { // the first frame, which has the source
			data[r.To-1] ^= 1
			break
		}
	}
	cut := bytes.Index(data, []byte("{\"n\":4}"))
	data[cut] ^= 1 // the stages, which have it too
	data[bytes.Index(data, []byte("{\"n\":6}"))] ^= 1
	open := bytes.Index(data, []byte("key-2"))
	data[open] ^= 1 // another segment, which has it too
	disk.Put(name, 0, data)
	disk = disk.Kill()
	j, found := recovered(t, disk)
	if found.Quarantined != 3 || eventsOf(t, found) != 1 { // the line of run-2
		t.Errorf("recovered %+v", found)
	}
	closeJournal(t, j)
	part, ok := disk.ReadFile("corrupt/run-1-1.gz.part")
	if got := inflate(part[min(10, len(part)):]); !ok || got != "{\"n\":1}\n{\"n\":2}\n" {
		t.Errorf("the copy has %q", got)
	}
}

// Given a limit for copies, then recovery stops copying there. Damage that is
// found again gives the same copies.
func TestCopies_Limit(t *testing.T) {
	t.Parallel()
	disk, name, data := filled(t)
	var wrong [][2]int64 // every other record
	for i, r := range spool.ParseRecords(data) {
		if i%2 == 1 {
			data[r.To-1] ^= 1
			wrong = append(wrong, [2]int64{r.From, r.To})
		}
	}
	disk.Put(name, 0, data)
	room := wrong[0][1] - wrong[0][0] + 20
	var first []string
	for run := range 3 {
		disk = disk.Kill()
		j, err := spool.NewJournal(spool.JournalSettings{Dir: disk.Dir(), RunID: fmt.Sprint("again-", run), Interval: time.Hour, MaxCopyBytes: room, Gather: new(feed).gather})
		if err != nil {
			t.Fatal(err)
		}
		found, err := j.Recover(t.Context())
		if err != nil || found.CopyErr == nil || found.CopiedBytes != room {
			t.Fatalf("%d bytes kept, want %d; %v, %v", found.CopiedBytes, room, found.CopyErr, err)
		}
		disk.Stop() // so that nothing is removed
		j.Close()
		var copies []string
		for i, w := range wrong {
			c, ok := disk.ReadFile(fmt.Sprintf("corrupt/%s-%d.bin", name, w[0]))
			if ok && !bytes.HasPrefix(data[w[0]:], c) || ok != (i < 2) {
				t.Errorf("copy %d: %d bytes, %v", i, len(c), ok)
			}
			copies = append(copies, string(c))
		}
		if first == nil {
			first = copies
		}
		if !slices.Equal(copies, first) {
			t.Error("the copies have changed")
		}
	}
}

// Given a file that cannot be read or that was removed, when recovery has tried
// for an hour, then the unreadable part counts as damaged and the rest is
// delivered. If nothing can be read, and for other errors, recovery keeps
// trying.
func TestRecover_UnreadableFiles(t *testing.T) {
	t.Parallel()
	disk, name, data := filled(t)
	for _, errno := range []error{syscall.EIO, syscall.ENOENT, syscall.EMFILE, syscall.ENXIO} {
		everything := errno == syscall.ENXIO
		if everything {
			errno = syscall.EIO
		}
		disk := disk.Kill()
		disk.Put(name, 0, append(data[:0:0], data...))
		j := openJournal(t, disk.Dir(), "run-3", new(feed))
		disk.Inject(func(op crashfs.Op) error {
			if (op.Name == name || everything) && (op.Call == crashfs.CallRead || op.Call == crashfs.CallOpen && errno != syscall.EIO) {
				return errno
			}
			return nil
		})
		var found *spool.Recovered
		var err error
		tries := 0
		for ; tries < 400; tries++ {
			if found, err = j.Recover(t.Context()); err == nil {
				break
			}
		}
		switch {
		case everything && err == nil: // the disk may come back
			t.Errorf("nothing can be read: %+v", found)
		case everything:
		case errno != syscall.EMFILE && (err != nil || tries != 360 || eventsOf(t, found) != 1 || !slices.Equal(found.DamagedFiles, []string{name})):
			t.Errorf("%v: after %d tries %+v, %v", errno, tries, found, err)
		case errno == syscall.EMFILE && err == nil:
			t.Errorf("%v: %+v", errno, found)
		}
		disk.Inject(nil)
		closeJournal(t, j)
	}
}

// Given a damaged segment whose blocks a recovery began to move, when the
// damage disappears, then each block is delivered once.
func TestRecover_DamageDisappears(t *testing.T) {
	t.Parallel()
	disk, name, data := filled(t)
	for _, p := range spool.ParseRecords(data) {
		if p.Kind != "frame" {
			continue
		}
		gone := bytes.Clone(data)
		gone[p.To-1] ^= 1
		disk := disk.Kill()
		disk.Put(name, 0, gone)
		disk = disk.Kill()
		j, found := recovered(t, disk)
		if n := eventsOf(t, found); n != 7 {
			t.Fatalf("%d events, want 7", n)
		}
		seg := segment("run-3", 1)
		for _, tail := range found.Unfinished {
			for _, b := range tail.Blocks {
				if f, framed, err := b.Frame(); err != nil {
					t.Fatal(err)
				} else if framed {
					j.Append(seg, f)
				}
			}
		}
		if err := j.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		disk = disk.Kill()
		j.Close()
		disk.Put(name, 0, data)
		disk = disk.Kill()
		j, found = recovered(t, disk)
		if n := eventsOf(t, found); n != 8 {
			t.Errorf("byte %d was restored: %d events, want 8", p.To-1, n)
		}
		closeJournal(t, j)
	}
}
