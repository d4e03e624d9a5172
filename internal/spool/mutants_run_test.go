//go:build mutants

package spool_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	matrix = flag.String("matrix", "", "file that TestMutants writes what it has found to")
	only   = flag.String("mutant", "", "regular expression of the mutants that TestMutants tries")
)

// mutant is a way to break the library.
type mutant struct {
	name    string
	rule    string // of the journal, see DESIGN.md
	patches []patch
	level   string // that notices it: tests are asked alone; empty: none can
	why     string // none can
}

// patch replaces text that is once in a file.
type patch struct{ file, old, new string }

// removeNow is code that removes the oldest files for which nobody asks, at a
// time when that is too early.
const removeNow = `
	for fs := j.files; len(fs.all) > 1 && fs.all[0].needs == 0 && fs.all[0] != fs.current; {
		fs.remove(fs.all[0])
		fs.dir.Sync()
		fs.all = fs.all[1:]
	}
`

const (
	journal = "internal/spool/journal.go"
	files   = "internal/spool/files.go"
	scan    = "internal/spool/scan.go"
	recover = "internal/spool/recover.go"
	records = "internal/spool/record.go"
	memory  = "internal/spool/spool.go"
	window  = "internal/spool/window.go"
	salvage = "internal/spool/salvage.go"
	lefts   = "internal/spool/leftover.go"
	settle  = "internal/upload/settle.go"
	sink    = "spool.go"
)

var mutants = []mutant{
	{"ack before sync", "1: ack = written and synced", []patch{
		{journal, "	stages, more := j.set.Gather(due)\n", "	close(c.done)\n	stages, more := j.set.Gather(due)\n"},
		{journal, "	c.err = err\n	close(c.done)", "	c.err = err"},
	}, "crashes", ""},
	{"no sync at all", "1", []patch{{files, "		err = f.append.file.Sync()", "		err = nil"}}, "crashes", ""},
	{"a failed commit is acknowledged", "1", []patch{{journal, "	c.err = err\n", ""}}, "crashes", ""},
	{"no directory sync after create", "1", []patch{{files, "		err = fs.dir.Sync()\n	}\n	if err != nil {\n		fs.freeze(f)", "	}\n	if err != nil {\n		fs.freeze(f)"}}, "crashes", ""},
	{"PUT before the seal is synced", "6", []patch{
		{journal, "		return f.spill(w, 0)\n	}\n}\n\n// stage writes", `		if err := f.spill(w, 0); err != nil {
			return err
		}
		for i := range queue {
			if e := &queue[i]; e.wrote != nil {
				e.wrote(f, e.end)
			}
		}
		for i := range queue {
			if e := &queue[i]; e.then != nil {
				e.then()
				e.then = nil
			}
		}
		return nil
	}
}

// stage writes`},
	}, "crashes", ""},
	{"PUT before the seal is written", "6", []patch{
		{journal, "		then:  sealed,\n	})\n	j.nudge()", "	})\n	sealed()\n	j.nudge()"},
	}, "crashes", ""},
	{"stage dead when its frame is appended", "6, 7a", []patch{
		{journal, "write: func(w *writer) error { w.frame(record); return nil }", "write: func(w *writer) error { w.frame(record); done(j.files.blocks, record.block); " + removeNow + " return nil }"},
	}, "crashes", ""},
	{"unlink before delivered is durable", "7b", []patch{
		{journal, "w.delivered(deliveredRecord{id}); return nil }", "w.delivered(deliveredRecord{id}); done(j.files.segments, id); " + removeNow + " return nil }"},
	}, "crashes", ""},
	{"unlink at the delivery", "7b", []patch{
		{journal, "write: func(w *writer) error { w.delivered(deliveredRecord{id}); return nil }", "write: func(w *writer) error { return nil }"},
	}, "crashes", ""},
	{"unlink ignoring who needs the file", "7", []patch{{files, "fs.all[0].needs == 0 && ", ""}}, "crashes", ""},
	{"unlink ignoring stages", "7a", []patch{{journal, "		need(j.files.blocks, blockID{j.run, s.Partition, s.Block}, current)\n", ""}}, "crashes", ""},
	{"unlink ignoring stages of earlier runs", "7a", []patch{{recover, "	files.blocks = united(files.blocks, r.needBlocks)\n", ""}}, "crashes", ""},
	{"unlink ignoring segments of earlier runs", "7b", []patch{{recover, "	files.segments = united(files.segments, r.needSegments)\n", ""}}, "crashes", ""},
	{"unlink in any order", "7c", []patch{
		{files, "	for len(fs.all) > 0 && fs.all[0].needs == 0", `	for i := 0; i < len(fs.all); i++ {
		if f := fs.all[i]; i > 0 && f.needs == 0 && f != fs.current && fs.remove(f) == nil {
			fs.dir.Sync()
			fs.all = slices.Delete(fs.all, i, i+1)
			i--
		}
	}
	for len(fs.all) > 0 && fs.all[0].needs == 0`},
	}, "crashes", ""},
	{"no directory sync between unlinks", "7c", []patch{{files, "		if fs.dir.Sync() != nil {\n			return\n		}\n		fs.all = fs.all[1:]", "		fs.all = fs.all[1:]"}}, "crashes", ""},
	{"new key on recovery", "12", []patch{{scan, "		s.seg.Header = *f.header\n", "		s.seg.Header = *f.header\n		s.seg.Key = r.j.run + s.seg.Key\n"}}, "crashes", ""},
	{"new keys after a failed fsync", "10", []patch{
		{journal, "	record := &frameRecord{", "	tries := 0\n	record := &frameRecord{"},
		{journal, "write: func(w *writer) error { w.frame(record); return nil }", `write: func(w *writer) error {
			if tries++; tries > 1 && record.index == 0 {
				seg.Sequence += 1 << 20
				seg.Key = "again-" + seg.Key
			}
			record.segmentID = seg.id()
			w.frame(record)
			return nil
		}`},
		{journal, "write: func(w *writer) error { w.seal(record); return nil }", "write: func(w *writer) error { record.segmentID = seg.id(); w.seal(record); return nil }"},
	}, "crashes", ""},
	{"no run id in a block's identity", "1", []patch{
		{journal, "	j.run = fmt.Sprintf(\"%016x-%s\", j.files.last+1, set.RunID) // the number of its first file", "	j.run = fmt.Sprint(\"run\")"},
	}, "crashes", ""},
	{"no run id in a segment's identity", "1", []patch{
		{memory, "segmentID{s.RunID, s.Sequence}", "segmentID{\"\", s.Sequence}"},
	}, "crashes", ""},
	{"no order of runs", "5", []patch{
		{journal, "fmt.Sprintf(\"%016x-%s\", j.files.last+1, set.RunID)", "fmt.Sprint(set.RunID)"},
	}, "crashes", ""},
	{"recovery does not sync what it read", "8", []patch{{recover, "		err = h.file.Sync()\n", ""}}, "", "what may not be on disk is written again (rule 9), so nothing rests on this sync; it is kept as a second net"},
	{"recovery does not sync the directory", "8", []patch{{recover, "	return r.j.set.Dir.Sync()\n", "	return nil\n"}}, "", "recovery always begins a file before it acts, and with that it syncs the directory; kept as a second net"},
	{"recovery writes nothing again", "9", []patch{{recover, "range r.doubtful {\n", "range r.doubtful[:0] {\n"}}, "crashes", ""},
	{"recovery trusts a nil fsync", "9", []patch{{scan, "		certain = f.size\n	}\n", "		certain = f.size\n	}\n	certain = max(certain, f.size)\n"}}, "crashes", ""},
	{"no doubts in the next file", "9", []patch{{files, "		fs.w.doubt(d)\n", "		_ = d\n"}}, "crashes", ""},
	{"only the last file is suspect", "9", []patch{{scan, "		if whole {\n			break\n		}", "		_ = whole\n		break"}}, "crashes", ""},
	{"doubts of earlier runs forgotten", "9", []patch{{scan, "		fs.inherit(append(doubts, doubtRecord{file: old[i].number}))\n", "		_ = doubts\n"}}, "crashes", ""},
	{"a doubtful file counts as known too far", "9", []patch{{files, "doubtRecord{f.number, f.durable})", "doubtRecord{f.number, max(f.size, f.end)})"}}, "crashes", ""},
	{"what is reserved counts as records", "9", []patch{{files, "	fs.doubt(f)\n	fs.release(f.append)\n", "	fs.release(f.append)\n"}}, "crashes", ""},
	{"a group says too much", "9", []patch{{journal, "		w.group(f.durable)\n", "		w.group(1 << 40)\n"}}, "crashes", ""},
	{"scan past a bad record", "4", []patch{{window, "		if errors.Is(err, errBad) {\n			return off, nil\n		}\n		if err != nil {\n			return off, err", "		if errors.Is(err, errBad) {\n			if n, _ := w.next(off + 1); n < w.size {\n				off = n\n				continue\n			}\n			return off, nil\n		}\n		if err != nil {\n			return off, err"}}, "crashes", ""},
	{"no checksum of the body", "4", []patch{{window, "sum != h.bodyCRC", "false"}}, "crashes", ""},
	{"no checksum of the head", "4", []patch{{records, " || crc32.Update(salt, castagnoli, b[:12]) != binary.LittleEndian.Uint32(b[12:])", ""}}, "tests", ""},
	{"torn tail accepted", "4", []patch{
		{window, "if err != nil || h.length > w.size-off-recordHeadSize {", "h.length = min(h.length, w.size-off-recordHeadSize)\n	if err != nil {"},
		{window, "sum != h.bodyCRC", "false"},
	}, "crashes", ""},
	{"no salt: another file's records accepted", "4", []patch{{files, "		salt:   binary.LittleEndian.Uint32(random[:]),\n", "		salt:   binary.LittleEndian.Uint32(random[:]) & 0,\n"}}, "tests", ""},
	{"stop at the first torn file", "4", []patch{{recover, "		if err := r.scan(f); err != nil {\n			return err\n		}", "		if err := r.scan(f); err != nil {\n			return err\n		}\n		if r.found.Torn > 0 {\n			break\n		}"}}, "crashes", ""},
	{"a file of another version is removed", "", []patch{{scan, "		f.needs++ // for ever\n", ""}}, "tests", ""},
	{"roll without syncing the old file", "3", []patch{{files, "	if err == nil {\n		err = f.append.file.Sync()", "	if err == nil && f.size < fs.full {\n		err = f.append.file.Sync()"}}, "crashes", ""},
	{"fsync retried on the same descriptor", "10", []patch{{files, "		err = f.append.file.Sync()\n", "		if err = f.append.file.Sync(); err != nil {\n			err = f.append.file.Sync()\n		}\n"}}, "crashes", ""},
	{"appended to a file whose sync failed", "10", []patch{{files, "	if err != nil {\n		fs.freeze(f)\n		return err\n	}\n	f.durable", "	if err != nil {\n		fs.current = f\n		fs.w.buf = fs.w.buf[:0]\n		return err\n	}\n	f.durable"}}, "crashes", ""},
	{"a failed commit forgets its stages", "10", []patch{{journal, "		j.held = stages\n", ""}}, "crashes", ""},
	{"a failed commit forgets its queue", "10", []patch{{journal, "		j.queue = append(queue, j.queue...)\n", ""}}, "crashes", ""},
	{"seal before its last frame", "5", []patch{{journal, "		for i := range queue {\n			if err := queue[i].write(w); err != nil {", "		slices.SortStableFunc(queue, func(a, b entry) int { return cmp.Compare(min(a.bytes, 1), min(b.bytes, 1)) })\n		for i := range queue {\n			if err := queue[i].write(w); err != nil {"}}, "crashes", ""},
	{"a sealed segment grows", "12", []patch{{recover, "		case s.seal != nil && s.whole():\n			r.found.Sealed = append(r.found.Sealed, s.seg)", "		case s.seal != nil && s.whole():\n			tail(s.partition.id, s.seg.Source, s.seg.Day).Segment = s.seg"}}, "crashes", ""},
	{"an unsealed segment is left out", "13", []patch{{recover, "case s.seal == nil && s.seg.Events > 0 &&", "case s.seal == nil && s.seg.Events > 0:\n		case s.seal == nil && s.seg.Events > 0 &&"}}, "crashes", ""},
	{"event taken from stage and frame", "1", []patch{{scan, "	delete(r.blocks, f.block)\n", ""}}, "crashes", ""},
	{"stages that are there twice are joined", "1", []patch{{lefts, "if p.offset >= have && p.at.size > 0 {", "if have >= 0 && p.at.size > 0 {"}}, "crashes", ""},
	{"a doubtful record is written again unchecked", "9", []patch{{recover, "crc32.Update(d.body.file.salt, castagnoli, w.buf[at:]) != d.crc", "crc32.Checksum(nil, castagnoli) != 0"}}, "crashes", ""},
	{"what was written again is forgotten", "9", []patch{{recover, "range r.j.moved {", "range r.j.moved[:0] {"}}, "tests", ""},
	{"damage ends the scan of a file", "4", []patch{{scan, "if end = min(next, certain); next > certain {", "if end = min(next, certain); true {"}}, "tests", ""},
	{"a file without header is not read", "4", []patch{{scan, "		f.salt = saltOf(f.name)\n", ""}}, "tests", ""},
	{"damage is not kept", "", []patch{{salvage, "if len(holes)+len(parts) == 0 {", "if true {"}}, "tests", ""},
	{"copies without bound", "", []patch{{"internal/spool/copies.go", "room: cmp.Or(j.set.Kept, maxCopiesSize)}", "room: maxCopiesSize}"}}, "tests", ""},
	{"a segment that may have lost its seal grows", "6", []patch{{salvage, "return len(r.holes) == 0 && ", "return "}}, "tests", ""},
	{"what is left of a segment is lost", "13", []patch{{salvage, "		last.Blocks = append(last.Blocks, Leftover{", "		_ = append(last.Blocks, Leftover{"}}, "tests", ""},
	{"a broken segment is salvaged again", "1", []patch{{salvage, "		if s.moving(*f) {\n			continue\n		}\n", ""}}, "tests", ""},
	{"frames of a segment that is salvaged are forgotten", "1", []patch{{scan, "in != s && !r.each {", "in == nil {"}}, "tests", ""},
	{"the end of a line behind a hole is taken", "4", []patch{{lefts, "	if !torn {\n", "	if true {\n"}}, "tests", ""},
	{"lines behind a hole are left out", "4", []patch{{lefts, "if p.offset >= have && p.at.size > 0 {", "if p.offset == have && p.at.size > 0 {"}}, "tests", ""},
	{"a read error is an outage", "", []patch{{settle, "			u.delayLocked(it) // alone: S3 is not at fault\n", "			u.delayLocked(it)\n			u.slowLocked(it)\n"}}, "tests", ""},
	{"a lost object is tried for ever", "", []patch{{settle, "	return it.unread >= minUnread && time.Since(it.unreadSince) >= unreadFor\n", "	return false\n"}}, "tests", ""},
	{"a read error is what came of it", "", []patch{{"internal/s3put/client.go", "case failed != nil:", "case failed != nil && false:"}}, "tests", ""},
	{"a lost object goes without a copy", "", []patch{{"deliver.go", "s.journal.SetAside(r.Segment)", "\"\", error(nil)"}}, "tests", ""},
	{"recovered blocks not first", "5", []patch{{sink, "b.recovering = j, j, true", "b.recovering = j, j, false"}}, "sinks", ""},
	{"frames in completion order", "5", []patch{{"batcher.go", "len(s.queue) > 0 && s.queue[0].framed {\n		blk := s.queue[0]\n		s.queue[0] = nil\n		s.queue = s.queue[1:]", "slices.ContainsFunc(s.queue, func(b *block) bool { return b.framed }) {\n		at := slices.IndexFunc(s.queue, func(b *block) bool { return b.framed })\n		blk := s.queue[at]\n		s.queue = slices.Delete(s.queue, at, at+1)"}, {"batcher.go", "import (\n", "import (\n	\"slices\"\n"}}, "sinks", ""},
	{"the ack of SyncEach does not wait", "1", []patch{{sink, "switch err := s.journal.Commit(ctx); {", "switch err := error(nil); {"}}, "sinks", ""},
	{"delivered before 2xx", "6", []patch{{"internal/upload/upload.go", "	result, err := u.set.Put(ctx, it.seg)\n", "	u.set.Delivered(Delivery{Segment: it.seg})\n	result, err := u.set.Put(ctx, it.seg)\n"}}, "sinks", ""},
	{"503 as success", "", []patch{{settle, "	if err == nil {\n		return nil\n	}\n	var e", "	if err == nil || strings.Contains(err.Error(), \"503\") {\n		return nil\n	}\n	var e"}, {settle, "	\"math/rand/v2\"\n", "	\"math/rand/v2\"\n	\"strings\"\n"}}, "sinks", ""},
	{"412 as failure", "", []patch{{"internal/s3put/client.go", "case conn.createOnly && !r.Replace && e.Status == http.StatusPreconditionFailed && e.named:", "case false:"}}, "tests", ""},
	{"409 as terminal", "", []patch{{"internal/s3put/outcome.go", "\"OperationAborted\", \"ConditionalRequestConflict\", ", "\"OperationAborted\", "}, {"internal/s3put/outcome.go", "	return Transient // 5xx, 409,", "	if status == 409 {\n		return Parked\n	}\n	return Transient // 5xx, 409,"}}, "tests", ""},
	{"no lock", "", []patch{{sink, "if err := dir.Lock(ctx); err != nil {", "if err := error(nil); err != nil {"}}, "tests", ""},
	{"Close leaves the last commit out", "1", []patch{{journal, "		case <-j.stop:\n			j.Commit(context.Background())\n", "		case <-j.stop:\n"}}, "tests", ""},
}

// levels are what notices a mutant, in this order.
var levels = []struct {
	name  string
	args  []string // of go test
	count string   // what it counts
}{
	{"crashes", []string{"-run", "^TestCrashes$", "-v", "./internal/spool", "-args", "-crashes", "20000"}, `(\d+) crashes`},
	{"sinks", []string{"-run", "^TestSinkSurvivesCrashes$", "-v", "."}, `(\d+) histories`},
	{"tests", []string{"-skip", "^TestCrashes$", "./internal/spool", "./internal/upload", "./internal/s3put"}, ""},
	{"tests", []string{"-run", "Spool|Lost|Outcome|Exist|Order", "."}, ""},
}

// Every mutant is noticed: what the tests cannot see they do not test.
//
//	go test -tags mutants -run TestMutants -timeout 1h ./internal/spool -args -matrix ../../docs/durability-mutants.md
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var rows, gaps []string
	for _, m := range mutants {
		if !regexp.MustCompile(*only).MatchString(m.name) {
			continue
		}
		began := time.Now()
		level, count := m.try(t, root)
		t.Logf("%-45s %-10s %-8s %v", m.name, cmp.Or(level, "-"), count, time.Since(began).Round(time.Second))
		if level == "" {
			gaps = append(gaps, fmt.Sprintf("- *%s*: %s.", m.name, cmp.Or(m.why, "an open gap")))
		}
		if level == "" && m.why == "" {
			t.Errorf("%s: nothing notices it", m.name)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |", m.name, cmp.Or(m.rule, "-"), cmp.Or(level, "**none**"), cmp.Or(count, "-")))
	}
	if *matrix != "" {
		text, err := os.ReadFile(*matrix)
		if err != nil {
			t.Fatal(err)
		}
		intro, _, _ := strings.Cut(string(text), "\n| mutant |")
		text = []byte(intro + "\n| mutant | rule | noticed by | after |\n|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n\n## Not noticed\n\n" + strings.Join(gaps, "\n") + "\n")
		if err := os.WriteFile(*matrix, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// try returns the level that notices the mutant, and after how much.
func (m *mutant) try(t *testing.T, root string) (level, count string) {
	overlay := m.overlay(t, root)
	for _, l := range levels {
		if overlay == "" {
			break
		}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		if m.level == "tests" && l.name != "tests" {
			cancel()
			continue // chance would find it late or never
		}
		cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1", "-timeout", "140s", "-overlay", overlay}, l.args...)...)
		cmd.Dir = root
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		cancel()
		if bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")) {
			t.Errorf("%s: %s", m.name, out)
			return "", ""
		}
		if err == nil {
			continue
		}
		if !errors.As(err, new(*exec.ExitError)) {
			t.Fatalf("%s: %v", m.name, err)
		}
		if l.count != "" {
			if found := regexp.MustCompile(l.count).FindSubmatch(out); found != nil {
				count = string(bytes.ReplaceAll(found[0], []byte("1 histories"), []byte("1 history")))
			} else if bytes.Contains(out, []byte("test timed out")) {
				count = "it hangs"
			} else if bytes.Contains(out, []byte("panic:")) {
				count = "it panics"
			}
		} else if found := regexp.MustCompile(`--- FAIL: (\w+)`).FindSubmatch(out); found != nil {
			count = string(found[1])
		}
		return l.name, count
	}
	return "", ""
}

// overlay writes the mutant's files, and a file that has go build use them
// instead of ours.
func (m *mutant) overlay(t *testing.T, root string) string {
	dir := t.TempDir()
	texts := map[string]string{}
	for _, p := range m.patches {
		file := filepath.Join(root, p.file)
		if texts[file] == "" {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = string(text)
		}
		if strings.Count(texts[file], p.old) != 1 {
			t.Errorf("%s: %q is not once in %s", m.name, p.old, p.file)
			return ""
		}
		texts[file] = strings.Replace(texts[file], p.old, p.new, 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		at := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[file] = at
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(at, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return at
}
