package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"slices"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/vfs"
)

const (
	// corruptName is the subdirectory for copies of damaged bytes.
	corruptName = "corrupt"

	maxCopies    = 1000     // files
	maxCopyBytes = 64 << 20 // bytes; default of JournalSettings.MaxCopyBytes
)

// errCorruptDirFull reports that the subdirectory is at its limit.
var errCorruptDirFull = errors.New("the subdirectory for copies of damaged bytes is full")

// corruptDir is the open subdirectory. It is created at the first damage, and its
// files are never removed.
type corruptDir struct {
	dir   vfs.Dir
	sizes map[string]int64
	room  int64
}

// withCorruptDir opens the subdirectory, calls f, and fsyncs the directories.
func (j *Journal) withCorruptDir(f func(*corruptDir) error) error {
	j.corruptMu.Lock()
	defer j.corruptMu.Unlock()
	dir, err := j.set.Dir.Sub(corruptName)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.List()
	if err != nil {
		return err
	}
	c := &corruptDir{dir: dir, sizes: map[string]int64{}, room: cmp.Or(j.set.MaxCopyBytes, maxCopyBytes)}
	for _, e := range entries {
		c.sizes[e.Name] = e.Size
		c.room -= e.Size
	}
	if err := f(c); err != nil {
		return err
	}
	return errors.Join(dir.Sync(), j.set.Dir.Sync())
}

// copyRange copies the window's bytes from an offset on.
func (c *corruptDir) copyRange(w *window, from int64) (int64, error) {
	if used, err := w.endOfData(from); err != nil || used == from {
		return 0, err // only zeros
	}
	return c.write(fmt.Sprintf("%s-%d.bin", w.f.name, from), func(to io.Writer) error {
		_, err := io.Copy(to, io.NewSectionReader(w.in, from, w.size-from))
		return err
	})
}

// copyFrames copies the readable frames of a segment, as a gzip file without
// its trailer.
func (c *corruptDir) copyFrames(id segmentID, files *files, frames []extent) (int64, error) {
	var failed error
	frames = slices.DeleteFunc(slices.Clone(frames), func(e extent) bool {
		_, err := io.CopyN(io.Discard, io.NewSectionReader(payloadReader{files, e}, 0, e.size), e.size)
		failed = cmp.Or(failed, err)
		return err != nil
	})
	if len(frames) == 0 {
		return 0, failed
	}
	return c.write(framesName(id), func(to io.Writer) error {
		if _, err := io.WriteString(to, deflate.Header); err != nil {
			return err
		}
		for _, e := range frames {
			if _, err := io.Copy(to, io.NewSectionReader(payloadReader{files, e}, 0, e.size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// CopyToCorrupt copies the readable frames of a sealed segment. It returns the
// name of the copy, relative to the spool directory. The caller then removes
// the segment.
func (j *Journal) CopyToCorrupt(seg *Segment) (name string, err error) {
	err = j.withCorruptDir(func(c *corruptDir) error {
		_, err := c.copyFrames(seg.id(), j.files, seg.disk)
		return err
	})
	return corruptName + "/" + framesName(seg.id()), err
}

var plainRun = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

func framesName(id segmentID) string {
	run := id.run
	if !plainRun.MatchString(run) {
		run = fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(run)))
	}
	return fmt.Sprintf("%s-%d.gz.part", run, id.sequence)
}

// write creates a copy, unless an identical one exists, and returns its size.
// With errCorruptDirFull the copy is incomplete or missing.
func (c *corruptDir) write(name string, from func(io.Writer) error) (int64, error) {
	room := c.room + c.sizes[name]
	_, exists := c.sizes[name]
	if !exists && len(c.sizes) >= maxCopies || room <= 0 {
		return 0, errCorruptDirFull
	}
	if exists {
		if found, whole := c.hasCopy(name, from, room); whole {
			return c.sizes[name], nil
		} else if found {
			return c.sizes[name], errCorruptDirFull
		}
		if err := c.dir.Remove(name); err != nil { // a crash interrupted it
			return 0, err
		}
	}
	f, err := c.dir.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	to := &limitedWriter{f: f, room: room}
	err = from(to)
	if failed := f.Sync(); failed != nil {
		err = failed
	}
	c.sizes[name], c.room = to.size, room-to.size
	return to.size, err
}

// limitedWriter appends to a file until it has room bytes.
type limitedWriter struct {
	f          vfs.File
	size, room int64
}

func (b *limitedWriter) Write(p []byte) (n int, err error) {
	if b.size+int64(len(p)) > b.room {
		err = errCorruptDirFull
		p = p[:b.room-b.size]
	}
	n, failed := b.f.Append(p)
	b.size += int64(n)
	if failed != nil {
		err = failed
	}
	return n, err
}

// hasCopy compares an existing file with the copy. It reports whether the file
// is the copy, or the part of it that there was room for.
func (c *corruptDir) hasCopy(name string, from func(io.Writer) error, room int64) (found, whole bool) {
	f, err := c.dir.Open(name)
	if err != nil {
		return false, false
	}
	defer f.Close()
	to := &compareWriter{f: f, size: c.sizes[name]}
	if from(to) != nil {
		return false, false
	}
	whole = to.compared == to.size
	return whole || to.compared > to.size && to.size >= room, whole
}

// compareWriter compares the bytes written to it with a file.
type compareWriter struct {
	f              vfs.File
	size, compared int64
}

var errDiffers = errors.New("the copy differs")

func (s *compareWriter) Write(p []byte) (int, error) {
	old := make([]byte, min(int64(len(p)), max(0, s.size-s.compared)))
	if n, _ := s.f.ReadAt(old, s.compared); !bytes.Equal(old[:n], p[:len(old)]) {
		return 0, errDiffers
	}
	s.compared += int64(len(p))
	return len(p), nil
}
