package spool_test

import (
	"bytes"
	"compress/flate"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

var damages = flag.Int("damages", 300, "number of spools that TestDamage damages")

// event is a tracked event: its partition and number.
type event struct{ p, n int }

// injury is one change to a file.
type injury struct {
	from, to int64
	how      string
}

// injure damages a file in up to three places. A part that it removes may
// consist of whole records.
func injure(rng *rand.Rand, data []byte, records []spool.Parsed) (after []byte, done []injury) {
	after = bytes.Clone(data)
	for range 1 + rng.IntN(3) {
		from := rng.Int64N(int64(len(data)))
		to := min(int64(len(data)), from+1+rng.Int64N([...]int64{1, 16, 200, 3000}[rng.IntN(4)]))
		how := [...]string{"flip", "zero", "noise", "end", "gap"}[rng.IntN(5)]
		switch how {
		case "flip":
			to = from + 1
			after[from] ^= 1 << rng.IntN(8)
		case "zero":
			clear(after[from:to])
		case "noise":
			for i := from; i < to; i++ {
				after[i] = byte(rng.Uint32())
			}
		}
		done = append(done, injury{from, to, how})
		if how == "end" || how == "gap" { // later offsets have moved, so this is the last injury
			if n := len(records); n > 0 && rng.IntN(2) == 0 {
				i := rng.IntN(n)
				from, to = records[i].From, records[i+rng.IntN(n-i)].To
			}
			if how == "end" {
				to = int64(len(data))
			}
			done[len(done)-1] = injury{from, to, how}
			return slices.Delete(after, int(from), int(to)), done
		}
	}
	return after, done
}

// eventsIn returns the events of whole lines.
func eventsIn(lines string) (all []event) {
	for text := range strings.Lines(lines) {
		var e event
		if _, err := fmt.Sscanf(text, "{\"p\":%d,\"n\":%d", &e.p, &e.n); err == nil && text == line(e.p, e.n) {
			all = append(all, e)
		}
	}
	return all
}

// inflate returns as much as can be inflated from compressed bytes.
func inflate(payload []byte) string {
	raw, _ := io.ReadAll(flate.NewReader(bytes.NewReader(payload)))
	return string(raw)
}

// damageDisk damages some files. It returns the events that must survive: all
// their records are intact. It leaves out records after damage that no commit is
// known to have covered.
func (w *world) damageDisk(t *testing.T, seed uint64) (whole map[event]bool) {
	rng := rand.New(rand.NewPCG(seed, 5))
	entries, err := w.disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	whole = map[event]bool{}
	hurt := map[event]bool{}
	injured := false // the next file
	for i, e := range slices.Backward(entries) {
		data, _ := w.disk.ReadFile(e.Name)
		if len(data) == 0 {
			continue
		}
		records := spool.ParseRecords(data)
		var done []injury
		if rng.IntN(len(entries)) <= 1 && (w.shut || i < len(entries)-1 && !injured) { // otherwise a seal could be lost without a trace
			var after []byte
			after, done = injure(rng, data, records)
			w.disk.Put(e.Name, 0, after)
			w.note("damage to %s of %d: %v", e.Name, len(data), done)
		}
		open := i == len(entries)-1 || injured
		injured = len(done) > 0
		first, certain, groups := int64(1<<62), int64(0), 0
		for _, d := range done {
			first = min(first, d.from)
		}
		hit := func(r spool.Parsed) bool {
			return slices.ContainsFunc(done, func(d injury) bool { return d.from < r.To && r.From < d.to })
		}
		for _, r := range records {
			if r.Kind != "group" {
				continue
			}
			if groups++; groups > 1 && !hit(r) { // the first group has no watermark of this file
				certain = r.From
			}
		}
		for _, r := range records {
			events := eventsIn(string(r.Data))
			if r.Kind == "frame" {
				events = eventsIn(inflate(r.Data))
			}
			touched := hit(r) || open && first < r.To && r.To > certain
			for _, e := range events {
				if whole[e] = true; touched {
					hurt[e] = true
				}
			}
		}
	}
	maps.DeleteFunc(whole, func(e event, _ bool) bool { return hurt[e] })
	w.damaged = true
	return whole
}

// copied checks that each copy equals bytes of a damaged file. It returns the
// events in partial objects, and all copies by name.
func (w *world) copied(t *testing.T, image *crashfs.FS) (events []event, all map[string][]byte) {
	all = map[string][]byte{}
	list, err := w.disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(e vfs.Entry) bool { return e.Name == "corrupt" && e.Type == fs.ModeDir }) {
		return nil, all
	}
	sub, err := w.disk.Dir().Sub("corrupt")
	if err != nil {
		t.Fatal(err)
	}
	copies, err := sub.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range copies {
		data, _ := w.disk.ReadFile("corrupt/" + c.Name)
		all[c.Name] = data
		var off int64
		if name, rest, ok := strings.Cut(c.Name, ".journal-"); !ok {
			if !strings.HasSuffix(c.Name, ".gz.part") {
				t.Errorf("%s is not a copy", c.Name)
			}
			events = append(events, eventsIn(inflate(data[min(10, len(data)):]))...)
		} else if _, err := fmt.Sscanf(rest, "%d.bin", &off); err != nil {
			t.Errorf("%s is not a copy", c.Name)
		} else if image == nil {
			continue
		} else if was, ok := image.ReadFile(name + ".journal"); !ok || !bytes.HasPrefix(was[min(off, int64(len(was))):], data) {
			t.Errorf("%s differs from the bytes at %d\n%s", c.Name, off, w.history())
		}
	}
	return events, all
}

// damage runs lives that end in Close, damages the disk, and checks what is
// delivered.
func damage(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(rng, seed)
	w.fileSize = [...]int64{1, 1500, 6000, 0}[rng.IntN(4)]
	w.shut = rng.IntN(2) == 0
	w.note("-seed %d, files of %d", seed, w.fileSize)
	for range 1 + rng.IntN(2) {
		l, err := w.start(t)
		if err != nil {
			t.Fatal(err)
		}
		l.live(t, rng.IntN(150))
		if err := l.j.Close(); err != nil {
			t.Fatal(err)
		}
		w.disk = w.disk.Kill()
	}
	before := map[event]bool{}
	for p, all := range w.delivered(t) {
		for _, n := range all {
			before[event{p, n}] = true
		}
	}
	w.found = nil
	whole := w.damageDisk(t, seed)
	w.shut = false
	image := w.disk.Kill() // read only
	w.disk = image.Kill()
	var cut map[string][]byte
	if rng.IntN(2) == 0 { // recovery is interrupted
		w.disk.FailAt(rng.IntN(80), crashfs.Stop)
		l, err := w.start(t)
		if err == nil {
			l.live(t, rng.IntN(20))
		}
		w.end(l, rng.IntN(2) == 0)
		_, cut = w.copied(t, nil) // which may leave a partial copy
	}
	l, err := w.start(t)
	if err != nil {
		t.Fatalf("start: %v\n%s", err, w.history())
	}
	l.drain(t)

	times := map[event]int{}
	for p, all := range w.delivered(t) {
		for _, n := range all {
			e := event{p, n}
			if times[e]++; times[e] > 1 && !before[e] {
				t.Errorf("event %v is delivered twice\n%s", e, w.history())
			}
		}
	}
	aside, all := w.copied(t, image)
	for e := range whole {
		if times[e] == 0 && !slices.Contains(aside, e) {
			t.Errorf("event %v is lost, but was not damaged\n%s", e, w.history())
			return
		}
	}
	for name := range cut {
		if _, ok := all[name]; !ok {
			t.Errorf("the copy %s was removed", name)
		}
	}
	if kept := slices.ContainsFunc(w.found, func(f *spool.Recovered) bool { return f.CopiedBytes > 0 }); kept && len(all) == 0 {
		t.Errorf("no damaged bytes were copied\n%s", w.history())
	}
	left, err := w.disk.Dir().List()
	left = slices.DeleteFunc(left, func(e vfs.Entry) bool { return e.Name == "corrupt" })
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v\n%s", left, err, w.history())
	}
}

// Given a damaged spool, when a run has delivered the rest, then every
// undamaged event is delivered once, or twice if it was delivered before. No
// object has other lines, no key had two contents, the damaged bytes are
// copied, and no other file is left.
func TestDamage(t *testing.T) {
	t.Parallel()
	if *seed != 0 {
		damage(t, *seed)
		return
	}
	for n := range uint64(*damages) {
		if damage(t, n+1); t.Failed() {
			return
		}
	}
}
