package spool_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/spool"
)

var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func frame(t testing.TB, raw string, at time.Time) spool.Frame {
	t.Helper()
	e, err := deflate.NewEncoder(5)
	if err != nil {
		t.Fatal(err)
	}
	f, err := e.Frame([][]byte{[]byte(raw)})
	if err != nil {
		t.Fatal(err)
	}
	return spool.Frame{Frame: f, Events: int64(bytes.Count([]byte(raw), []byte("\n"))), First: at, Last: at.Add(time.Second)}
}

func TestMemory_Object(t *testing.T) {
	t.Parallel()
	var mem spool.Memory
	seg := spool.NewSegment(spool.Header{Key: "k"})
	var want string
	for i := range 20 {
		raw := fmt.Sprintf("{\"n\":%d}\n{\"also\":%d}\n", i, i)
		want += raw
		if err := mem.Append(seg, frame(t, raw, day.Add(time.Duration(20-i)*time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	ready := false
	mem.Seal(seg, func() { ready = true })
	if !ready {
		t.Fatal("not sealed")
	}
	object, err := io.ReadAll(mem.Object(seg))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(object)) != seg.Size() || crc32.ChecksumIEEE(object) != seg.CRC32() {
		t.Errorf("%d bytes with CRC %08x, the segment says %d and %08x",
			len(object), crc32.ChecksumIEEE(object), seg.Size(), seg.CRC32())
	}
	if err := iotest.TestReader(mem.Object(seg), object); err != nil {
		t.Error(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != want {
		t.Errorf("unpacked %q, %v", got, err)
	}
	if seg.Events != 40 || seg.Raw != int64(len(want)) {
		t.Errorf("%d events and %d raw bytes, want 40 and %d", seg.Events, seg.Raw, len(want))
	}
	if !seg.First.Equal(day.Add(time.Minute)) || !seg.Last.Equal(day.Add(20*time.Minute+time.Second)) {
		t.Errorf("received from %v to %v", seg.First, seg.Last)
	}
}

func TestMemory_ReadAfterRemove(t *testing.T) {
	t.Parallel()
	var mem spool.Memory
	seg := spool.NewSegment(spool.Header{})
	mem.Append(seg, frame(t, "{}\n", day))
	mem.Seal(seg, func() {})
	r := mem.Object(seg) // a transport may read a body after its response
	mem.Remove(seg)
	if got, err := io.ReadAll(r); err != nil || len(got) == 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestSegment_Fits(t *testing.T) {
	t.Parallel()
	f := frame(t, "{\"a\":1}\n{\"b\":2}\n", day)
	full := int64(deflate.Overhead + 2*len(f.Payload))
	for name, tt := range map[string]struct {
		lim  spool.Limits
		raw  int64 // already in the segment
		want bool
	}{
		"to the byte":                 {spool.Limits{Bytes: full}, f.Raw, true},
		"one byte over":               {spool.Limits{Bytes: full - 1}, f.Raw, false},
		"to the event":                {spool.Limits{Bytes: full, Events: 4}, f.Raw, true},
		"one event over":              {spool.Limits{Bytes: full, Events: 3}, f.Raw, false},
		"raw length in 32 bits":       {spool.Limits{Bytes: full}, deflate.MaxRaw - f.Raw, true},
		"raw length out of 32 bits":   {spool.Limits{Bytes: full}, deflate.MaxRaw - f.Raw + 1, false},
		"the first one always does":   {spool.Limits{Bytes: 1}, 0, true},
		"no limit of events unless 0": {spool.Limits{Bytes: full, Events: 0}, f.Raw, true},
	} {
		seg := spool.NewSegment(spool.Header{})
		if tt.raw != 0 {
			first := f
			first.Raw = tt.raw
			spool.Memory{}.Append(seg, first)
		}
		if got := seg.Fits(&f, tt.lim); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
