package spool_test

import (
	"fmt"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mutant is a change that breaks the library.
type mutant struct {
	name    string
	rule    string // of the journal, see docs/durability-mutants.md
	patches []patch
	by      string // the test that detects it: the name of an asker's test, or a folder and a test
	why     string // why no test detects it
}

// patch replaces a sequence of tokens that occurs once in a file. Comments and
// white space do not count, so a change of a comment breaks no patch.
type patch struct{ file, old, new string }

// removeNow is code that removes the oldest unpinned files at once, in a place
// where that is too early.
const removeNow = `
	for fs := j.files; len(fs.all) > 1 && fs.all[0].pins == 0 && fs.all[0] != fs.current; {
		fs.unlink(fs.all[0])
		fs.dir.Sync()
		fs.all = fs.all[1:]
	}
`

const (
	journalGo = "internal/spool/journal.go"
	commitGo  = "internal/spool/commit.go"
	fullGo    = "internal/spool/full.go"
	reserveGo = "internal/spool/reserve.go"
	cleanGo   = "internal/spool/clean.go"
	noteGo    = "internal/vfs/note.go"
	filesGo   = "internal/spool/files.go"
	scanGo    = "internal/spool/scan.go"
	recoverGo = "internal/spool/recover.go"
	recordGo  = "internal/spool/record.go"
	segmentGo = "internal/spool/spool.go"
	windowGo  = "internal/spool/window.go"
	salvageGo = "internal/spool/salvage.go"
	blockGo   = "internal/spool/recovered_block.go"
	corruptGo = "internal/spool/corrupt.go"
	attemptGo = "internal/upload/attempt.go"
	settleGo  = "internal/upload/settle.go"
	clientGo  = "internal/s3put/client.go"
	outcomeGo = "internal/s3put/outcome.go"
	encoderGo = "internal/deflate/encoder.go"

	batcherGo   = "batcher.go"
	deliverGo   = "deliver.go"
	gatherGo    = "gather.go"
	hooksGo     = "hooks.go"
	sessionGo   = "session.go"
	sinkGo      = "s3sink.go"
	sinkSpoolGo = "spool.go"
	sourceGo    = "source.go"
)

var mutants = []mutant{
	{"ack before write", "1: ack = written and synced", []patch{
		{commitGo, "	stages, more := j.set.Gather(gatherBefore)\n", "	close(c.done)\n	stages, more := j.set.Gather(gatherBefore)\n"},
		{commitGo, "	c.err = err\n	close(c.done)", "	c.err = err"},
		{journalGo, "ctx.Done() == nil && j.commitMu.TryLock()", "false"}, // its caller would return only after the whole commit
	}, byCrashes, ""},
	{"no fsync at all", "1", []patch{{filesGo, "		err = f.appender.file.Sync()", "		err = nil"}}, byCrashes, ""},
	{"a failed commit is acknowledged", "1", []patch{{commitGo, "	c.err = err\n", ""}}, byCrashes, ""},
	{"ack before sync", "1", []patch{
		{commitGo, "	done, left, err := j.writeGroup(", "	j.files.early = func() { close(c.done) }\n	done, left, err := j.writeGroup("},
		{filesGo, "	w       writer\n", "	w       writer\n	early   func()\n"},
		{filesGo, "		err = f.appender.file.Sync()\n", "		if fs.early != nil {\n			fs.early()\n		}\n		fs.early = nil\n		err = f.appender.file.Sync()\n"},
		{commitGo, "	c.err = err\n	close(c.done)", "	c.err = err\n	if j.files.early != nil {\n		close(c.done)\n	}"},
		{journalGo, "ctx.Done() == nil && j.commitMu.TryLock()", "false"}, // its caller would return only after the whole commit
	}, byCrashes, ""},
	{"no directory sync after create", "1", []patch{{filesGo, "if err == nil && created {", "if false {"}}, byCrashes, ""},
	{"directory sync after the first ack", "1", []patch{{filesGo, "if err == nil && created {", "if err == nil && !created {"}}, byCrashes, ""},
	{"PUT before the seal is synced", "6", []patch{
		{commitGo, "		return f.spill(w, 0)\n	}\n}\n\n// stage writes", `		if err := f.spill(w, 0); err != nil {
			return err
		}
		for i := range g.queue {
			if e := &g.queue[i]; e.onSynced != nil {
				e.onSynced(e.writtenAt)
			}
		}
		for i := range g.queue {
			if e := &g.queue[i]; e.onGroupSynced != nil {
				e.onGroupSynced()
				e.onGroupSynced = nil
			}
		}
		return nil
	}
}

// stage writes`},
	}, byCrashes, ""},
	{"PUT before the seal is written", "6", []patch{
		{journalGo, "		onGroupSynced:  sealed,\n	})\n	j.requestCommit()", "	})\n	sealed()\n	j.requestCommit()"},
	}, byCrashes, ""},
	{"stages unpinned when the frame is appended", "6, 7a", []patch{
		{journalGo, "encode: func(w *writer) error { w.frame(record); return nil }", "encode: func(w *writer) error { w.frame(record); unpinAll(j.files.blockPins, record.block); " + removeNow + " return nil }"},
	}, byCrashes, ""},
	{"unlink before the delivered record is synced", "7b", []patch{
		{journalGo, "w.delivered(deliveredRecord{id}); return nil }", "w.delivered(deliveredRecord{id}); unpinAll(j.files.segmentPins, id); " + removeNow + " return nil }"},
	}, byCrashes, ""},
	{"unlink without a delivered record", "7b", []patch{
		{journalGo, "encode: func(w *writer) error { w.delivered(deliveredRecord{id}); return nil }", "encode: func(w *writer) error { return nil }"},
	}, byCrashes, ""},
	{"unlink ignoring pins", "7", []patch{{filesGo, "fs.all[0].pins == 0 && ", ""}}, byCrashes, ""},
	{"unlink ignoring stages", "7a", []patch{{commitGo, "		addPin(j.files.blockPins, blockID{j.run, s.Partition, s.Block}, s.pin)\n", ""}}, byCrashes, ""},
	{"unlink ignoring stages of previous runs", "7a", []patch{{recoverGo, "	files.blockPins = mergePins(files.blockPins, r.blockPins)\n", ""}}, byCrashes, ""},
	{"unlink ignoring segments of previous runs", "7b", []patch{{recoverGo, "	files.segmentPins = mergePins(files.segmentPins, r.segmentPins)\n", ""}}, byCrashes, ""},
	{"unlink in any order", "7c", []patch{
		{filesGo, "	for len(fs.all) > 0 && fs.all[0].pins == 0", `	for i := 0; i < len(fs.all); i++ {
		if f := fs.all[i]; i > 0 && f.pins == 0 && f != fs.current && fs.unlink(f) == nil {
			fs.dir.Sync()
			fs.all = slices.Delete(fs.all, i, i+1)
			i--
		}
	}
	for len(fs.all) > 0 && fs.all[0].pins == 0`},
	}, byCrashes, ""},
	{"no directory sync between unlinks", "7c", []patch{{filesGo, "		if err := fs.dir.Sync(); err != nil {\n			return false, err\n		}\n		fs.all", "		fs.all"}}, byCrashes, ""},
	{"new key on recovery", "12", []patch{{scanGo, "		s.seg.Header = *f.header\n", "		s.seg.Header = *f.header\n		s.seg.Key = r.j.run + s.seg.Key\n"}}, byCrashes, ""},
	{"new keys after a failed fsync", "10", []patch{
		{journalGo, "	record := &frameRecord{", "	tries := 0\n	record := &frameRecord{"},
		{journalGo, "encode: func(w *writer) error { w.frame(record); return nil }", `encode: func(w *writer) error {
			if tries++; tries > 1 && record.index == 0 {
				seg.Sequence += 1 << 20
				seg.Key = "again-" + seg.Key
			}
			record.segmentID = seg.id()
			w.frame(record)
			return nil
		}`},
		{journalGo, "encode: func(w *writer) error { w.seal(record); return nil }", "encode: func(w *writer) error { record.segmentID = seg.id(); w.seal(record); return nil }"},
	}, byCrashes, ""},
	{"no run id in a block's identity", "1", []patch{
		{journalGo, "	j.run = fmt.Sprintf(\"%016x-%s\", j.files.lastNumber+1, set.RunID) // the number of its first file", "	j.run = fmt.Sprint(\"run\")"},
	}, byCrashes, ""},
	{"no run id in a segment's identity", "1", []patch{
		{segmentGo, "segmentID{s.RunID, s.Sequence}", "segmentID{\"\", s.Sequence}"},
	}, byCrashes, ""},
	{"run ids do not sort", "5", []patch{
		{journalGo, "fmt.Sprintf(\"%016x-%s\", j.files.lastNumber+1, set.RunID)", "fmt.Sprint(set.RunID)"},
	}, byCrashes, ""},
	{"recovery does not sync the files it read", "8", []patch{{recoverGo, "		err = h.file.Sync()\n", ""}}, "", "records that may not be on disk are written again (rule 9), so nothing depends on this fsync; it is kept as a second safeguard"},
	{"recovery does not sync the directory", "8", []patch{{recoverGo, "	return r.j.set.Dir.Sync()\n", "	return nil\n"}}, "", "recovery always begins a file before it acts, and that fsyncs the directory; this fsync is kept as a second safeguard"},
	{"recovery rewrites no unsynced record", "9", []patch{{recoverGo, "for _, d := range r.unsynced {\n", "for _, d := range r.unsynced[:0] {\n"}}, byCrashes, ""},
	{"recovery trusts a successful fsync", "9", []patch{{scanGo, "		syncedTo = f.size\n	}\n", "		syncedTo = f.size\n	}\n	syncedTo = max(syncedTo, f.size)\n"}}, byCrashes, ""},
	{"no watermarks in the next file", "9", []patch{{filesGo, "		fs.w.watermark(d)\n", "		_ = d\n"}}, byCrashes, ""},
	{"only the last file gets a watermark", "9", []patch{{scanGo, "		if complete {\n			break\n		}", "		_ = complete\n		break"}}, byCrashes, ""},
	{"watermarks of previous runs are dropped", "9", []patch{{scanGo, "		fs.mergeWatermarks(syncedTo)\n", ""}}, byCrashes, ""},
	{"a watermark is too high", "9", []patch{{filesGo, "watermarkRecord{f.number, f.syncedTo})", "watermarkRecord{f.number, max(f.size, f.preallocatedTo)})"}}, byCrashes, ""},
	{"preallocated zeros count as records", "9", []patch{{filesGo, "	fs.addWatermark(f)\n	fs.releaseHandle(f.appender)\n", "	fs.releaseHandle(f.appender)\n"}}, byCrashes, ""},
	{"the watermark of a group is too high", "9", []patch{{commitGo, "		w.group(f.syncedTo)\n", "		w.group(1 << 40)\n"}}, byCrashes, ""},
	{"scan past an invalid record", "4", []patch{{windowGo, "			return off, nil\n		}\n		if err != nil {", "			if n, _ := w.nextRecord(off + 1); n < w.size {\n				off = n\n				continue\n			}\n			return off, nil\n		}\n		if err != nil {"}}, byCrashes, ""},
	{"no checksum of the body", "4", []patch{{windowGo, "sum != h.bodyCRC", "false"}}, byCrashes, ""},
	{"no checksum of the head", "4", []patch{{recordGo, " || crc32.Update(salt, castagnoli, b[:12]) != binary.LittleEndian.Uint32(b[12:])", ""}}, "internal/spool TestRecover_RecordsOfAnotherFile", ""},
	{"torn record accepted", "4", []patch{
		{windowGo, "if err != nil || h.length > w.size-off-recordHeadSize {", "h.length = min(h.length, w.size-off-recordHeadSize)\n	if err != nil {"},
		{windowGo, "sum != h.bodyCRC", "false"},
	}, byCrashes, ""},
	{"records of another file accepted", "4", []patch{{filesGo, "binary.LittleEndian.Uint32(random[:])", "binary.LittleEndian.Uint32(random[:]) & 0"}}, "internal/spool TestRecover_RecordsOfAnotherFile", ""},
	{"scan stops at the first torn file", "4", []patch{{recoverGo, "		if err := r.scan(f); err != nil {\n", "		if r.result.TornBytes > 0 {\n			break\n		}\n		if err := r.scan(f); err != nil {\n"}}, byCrashes, ""},
	{"a file of another version is removed", "", []patch{{scanGo, "		f.pins++ // never remove it\n", ""}}, "internal/spool TestRecover_ForeignFilesUntouched", ""},
	{"full file not synced", "3", []patch{{filesGo, "		err = f.appender.file.Sync()\n", "		if f.size < fs.maxFileBytes {\n			err = f.appender.file.Sync()\n		}\n"}}, byCrashes, ""},
	{"fsync retried on the same descriptor", "10", []patch{{filesGo, "		err = f.appender.file.Sync()\n", "		if err = f.appender.file.Sync(); err != nil {\n			err = f.appender.file.Sync()\n		}\n"}}, byCrashes, ""},
	{"append to a file whose fsync failed", "10", []patch{{filesGo, "		fs.abandon(f)\n", "		fs.current, fs.w.buf = f, fs.w.buf[:0]\n"}}, byCrashes, ""},
	{"append after a short write", "10", []patch{{filesGo, "	err := group(f, &fs.w)\n", "	err := group(f, &fs.w)\n	if err != nil && !created {\n		fs.w.buf = fs.w.buf[:0]\n		return err\n	}\n"}}, byCrashes, ""},
	{"a failed commit drops its stages", "10", []patch{{commitGo, "	j.unsyncedStages = left.stages\n", "	j.unsyncedStages = nil\n"}}, byCrashes, ""},
	{"a failed commit drops its queue", "10", []patch{{commitGo, "		j.queue = append(left.queue, j.queue...)\n", "		_ = left\n"}}, byCrashes, ""},
	{"seal before its last frame", "5", []patch{{commitGo, "	\"runtime\"\n	\"time\"\n", "	\"runtime\"\n	\"slices\"\n	\"time\"\n"}, {commitGo, "		for i := range g.queue {\n			if err := g.queue[i].encode(w); err != nil {", "		slices.SortStableFunc(g.queue, func(a, b entry) int { return int(min(a.payloadBytes, 1) - min(b.payloadBytes, 1)) })\n		for i := range g.queue {\n			if err := g.queue[i].encode(w); err != nil {"}}, byCrashes, ""},
	{"a sealed segment grows", "12", []patch{{recoverGo, "			r.result.Sealed = append(r.result.Sealed, s.seg)", "			parts.partition(s.partition.id, s.seg.Source, s.seg.Day).Segment = s.seg"}}, byCrashes, ""},
	{"an open segment is dropped", "13", []patch{{recoverGo, "			p.Segment = s.seg\n", ""}}, byCrashes, ""},
	{"event delivered from stage and frame", "1", []patch{{scanGo, "	delete(r.blocks, f.block)\n", ""}}, byCrashes, ""},
	{"copies of a stage are joined", "1", []patch{{blockGo, "if p.offset >= have && p.at.size > 0 {", "if have >= 0 && p.at.size > 0 {"}}, byCrashes, ""},
	{"an unsynced record is rewritten unchecked", "9", []patch{{recoverGo, "crc32.Update(d.body.file.salt, castagnoli, w.buf[at:]) != d.crc", "crc32.Checksum(nil, castagnoli) != 0"}}, byCrashes, ""},
	{"rewritten records are not reread", "9", []patch{{recoverGo, "range r.j.rewritten {", "range r.j.rewritten[:0] {"}}, "internal/spool TestRecover_UnsyncedRecordChanges", ""},
	{"damage ends the scan of a file", "4", []patch{{scanGo, "		if next > s.syncedTo {\n			return s.syncedTo, nil\n		}\n", "		if true {\n			return min(next, s.syncedTo), nil\n		}\n"}}, "internal/spool TestDamage", ""},
	{"a file without header is not read", "4", []patch{{scanGo, "		f.salt = saltOf(f.name)\n", ""}}, "internal/spool TestDamage", ""},
	{"damaged bytes are not copied", "", []patch{{salvageGo, "if len(ranges)+len(parts) == 0 {", "if true {"}}, "internal/spool TestDamage", ""},
	{"copies without limit", "", []patch{{corruptGo, "room: cmp.Or(j.set.MaxCopyBytes, maxCopyBytes)}", "room: maxCopyBytes}"}}, "internal/spool TestCopies_Limit", ""},
	{"a segment that may have lost its seal grows", "6", []patch{{salvageGo, "return len(r.damagedRanges) == 0 && ", "return "}}, "internal/spool TestDamage", ""},
	{"frames of a damaged segment are dropped", "13", []patch{{salvageGo, "		last.Blocks = append(last.Blocks, RecoveredBlock{", "		_ = append(last.Blocks, RecoveredBlock{"}}, "internal/spool TestDamage", ""},
	{"a moved block is salvaged again", "1", []patch{{salvageGo, "		if s.isInOtherSegment(*f) {\n			continue\n		}\n", ""}}, "internal/spool TestDamage", ""},
	{"metadata of salvaged frames is dropped", "1", []patch{{scanGo, "in != s && !r.keepAllFrames {", "in == nil {"}}, "internal/spool TestRecover_DamageDisappears", ""},
	{"watermarks of a previous try are dropped", "9", []patch{{recoverGo, "		r.syncedTo[m.file] = m.syncedTo\n", "		if _, ok := syncedTo[m.file]; ok {\n			r.syncedTo[m.file] = m.syncedTo\n		}\n"}}, "internal/spool TestRecover_KeepsWatermarkAcrossTries", ""},
	{"files of this run are removed before recovery ends", "7c", []patch{{filesGo, "	if !fs.adopted {\n		return false, nil\n	}\n", ""}}, "internal/spool TestRemoval_DeliveredRecordAfterFrames", ""},
	{"files are removed only after a successful commit", "", []patch{{commitGo, "	j.removeOldest() // also", "	if err == nil {\n		j.removeOldest()\n	}\n	// also"}}, "internal/spool TestRemoval_FullDisk", ""},
	{"old file removed before its copies are synced", "7", []patch{
		{commitGo, "			g.copies[i].to = w.lastExtent(f)\n", `			g.copies[i].to = w.lastExtent(f)
			unpin(j.files.blockPins, g.copies[i].block, g.copies[i].from.file, 0)
			unpin(j.files.segmentPins, g.copies[i].segment, g.copies[i].from.file, 0)
` + removeNow},
	}, byCrashes, ""},
	{"the reserve is never given up", "", []patch{{fullGo, "			r.giveUp()\n			room = (r.freeBytes() - r.want/4) / 2\n", "			room = (r.freeBytes() - r.want/4) / 2\n"}}, "internal/spool TestReserve_DrainsFullVolume", ""},
	{"the reserve is never renewed", "", []patch{{reserveGo, "	if r.want == 0 || r.held >= r.want/2", "	if r.last || r.held >= r.want/2"}, {reserveGo, "	exists bool", "	last   bool\n	exists bool"}, {reserveGo, "		r.held, r.exists = 0, false\n", "		r.last = r.held > 0\n		r.held, r.exists = 0, false\n"}}, "internal/spool TestReserve_DrainsFullVolume", ""},
	{"new events use the reserve", "", []patch{{fullGo, "	if len(queue) == 0 {\n		return nil, nil\n	}\n", "	if len(queue) == 0 {\n		j.files.reserve.giveUp()\n		return nil, nil\n	}\n"}}, "internal/spool TestReserve_NotUsedByNewEvents", ""},
	{"the limit ignores free space", "", []patch{{sinkSpoolGo, "	if room < s.batcher.unwrittenBytes(room) {\n		return", "	if false {\n		return"}}, ". TestVolume_FullForADay", ""},
	{"an unsynced sealed segment is delivered early", "9", []patch{{recoverGo, "		unsynced[r.unsynced[i].segment] = true\n", "		unsynced[r.unsynced[i].segment] = false\n"}}, byCrashes, ""},
	{"early delivery waits for a write", "", []patch{{recoverGo, "	r.deliverEarly()\n", ""}}, "internal/spool TestRecover_DeliversEarlyOnFullVolume", ""},
	{"a frame of another run releases stages", "1", []patch{{fullGo, "		if !framed[blockID{j.run, s.Partition, s.Block}] {\n", "		if !slices.ContainsFunc(written, func(e entry) bool {\n			return e.framedBlock != nil && e.framedBlock.partition == s.Partition && e.framedBlock.block == s.Block\n		}) {\n"}}, byCrashes, ""},
	{"a delivered record overtakes the moved frames", "7b", []patch{{journalGo, "j.remove(seg, false)", "j.remove(seg, true)"}}, "internal/spool TestFullVolume_RemoveReplacedFollowsFrames", ""},
	{"stages are written after their frame", "7a", []patch{{commitGo, "		all.stages = j.dropFramedStages(all.stages, done.queue)\n", ""}}, "internal/spool TestFullVolume_FrameReplacesItsStages", ""},
	{"a delivery during recovery is not unpinned", "7b", []patch{{recoverGo, "		unpinAll(r.segmentPins, id)\n", "		_ = id\n"}}, byCrashes, ""},
	{"unspooled events count as left", "", []patch{{sinkGo, "			s.batcher.dropUnspooled()\n", ""}}, ". TestClose_CountsUnspooledEventsAsDropped", ""},
	{"a copy has another identity", "1", []patch{{cleanGo, "	w.buf = append(w.buf, l.body...)\n", "	l.body[1] ^= 1\n	w.buf = append(w.buf, l.body...)\n"}}, byCrashes, ""},
	{"copies without their seal", "6", []patch{{cleanGo, "		if l.segment = s.segmentID; err == nil && isPinned(c.files.segmentPins, l.segment, f) {\n			return l\n", "		if l.segment = s.segmentID; err == nil {\n			unpin(c.files.segmentPins, l.segment, f, 0)\n"}}, byCrashes, ""},
	{"cleaning skips stages", "7a", []patch{{cleanGo, "		if l.block, l.payload = s.blockID, size; err == nil && isPinned(c.files.blockPins, l.block, f) {\n			return l\n", "		if l.block, l.payload = s.blockID, size; err == nil {\n			unpin(c.files.blockPins, l.block, f, 0)\n"}}, byCrashes, ""},
	{"cleaning skips frames", "7b", []patch{{cleanGo, "		if l.segment, l.payload = r.segmentID, size; err == nil && isPinned(c.files.segmentPins, l.segment, f) {\n			return l\n", "		if l.segment, l.payload = r.segmentID, size; err == nil {\n			unpin(c.files.segmentPins, l.segment, f, 0)\n"}}, byCrashes, ""},
	{"a copied frame is not pinned", "7b", []patch{{cleanGo, "			addPin(fs.segmentPins, l.segment, l.to.pin())\n", ""}}, byCrashes, ""},
	{"a copied stage is not pinned", "7a", []patch{{cleanGo, "			addPin(fs.blockPins, l.block, l.to.pin())\n", ""}}, byCrashes, ""},
	{"readers are not redirected to the copy", "", []patch{{cleanGo, "			fs.redirect(l.from.suffix(l.payload), l.to.suffix(l.payload))\n", "			_ = fs.redirect\n"}}, "internal/spool TestCleaning_CopiesLiveRecords", ""},
	{"a payload that is copied twice is not found", "", []patch{{filesGo, "	now := from.file.copiedHere[from.offset]\n", "	var now *extent\n"}}, "internal/spool TestCleaning_CopiesLiveRecords", ""},
	{"a record with a later copy is copied again", "7", []patch{{scanGo, "	f.superseded[at.end()] = struct{}{}\n", ""}}, byCrashes, ""},
	{"an unsynced record is unpinned without a copy", "9", []patch{{recoverGo, "	return last.file == d.body.file && last.end() == d.body.end()\n", "	return last.file == d.body.file && last.end() == d.body.end() && len(r.files[0].superseded) == 0\n"}}, "internal/spool TestCleaning_CopiesOfFailedSync", ""},
	{"no file is cleaned", "", []patch{{cleanGo, "if !c.started || len(fs.all) == 0 ||", "if true || !c.started || len(fs.all) == 0 ||"}}, ". TestSpool_RefusedObjectBlocksNoSource", ""},
	{"a commit copies a whole file", "", []patch{{cleanGo, "cleanStep = 256 << 10", "cleanStep = 256 << 20"}}, "internal/spool TestCleaning_BoundedStep", ""},
	{"a failed copy fails the commit", "", []patch{{commitGo, "if j.cleaner.finishBatch(err); err == nil {\n			return all, group{}, nil\n", "if j.cleaner.finishBatch(err); true {\n			return group{}, all, err\n"}}, byCrashes, ""},
	{"a salvaged segment is cleaned", "5", []patch{{cleanGo, "			c.damaged = append(c.damaged, b.Segment.id())\n", "			_ = b\n"}}, "internal/spool TestDamage", ""},
	{"the last id is removed with the last file", "5", []patch{{filesGo, "	if f.lastID <= fs.notedID || ", "	if true || f.lastID <= fs.notedID || "}}, ". TestSpool_ClockGoesBack", ""},
	{"the last id of previous runs is not read", "5", []patch{{scanGo, "			r.result.LastID = max(r.result.LastID, id)\n", ""}}, byCrashes, ""},
	{"groups do not record the last id", "5", []patch{{commitGo, "			w.lastID(f.groupLastID)\n", ""}}, byCrashes, ""},
	{"a file is removed before the last id is elsewhere", "5", []patch{{filesGo, "g.lastID >= f.lastID }", "true }"}}, "internal/spool TestLastID_FileOfFailedCommit", ""},
	{"ids start at the clock", "5", []patch{{sinkSpoolGo, "	s.ids.Raise(found.LastID)", "	_ = (found.LastID)"}}, ". TestSpool_ClockGoesBack", ""},
	{"a torn note overwrites the previous one", "", []patch{{noteGo, "int64(count%2)*noteStride", "0*noteStride"}}, "internal/vfs TestNote_OutlivesHoldersAndTornWrites", ""},
	{"a partial line after a gap is delivered", "4", []patch{{blockGo, "	if !afterGap {\n", "	if true {\n"}}, "internal/spool TestLines_DamagedStage", ""},
	{"lines after a gap are dropped", "4", []patch{{blockGo, "if p.offset >= have && p.at.size > 0 {", "if p.offset == have && p.at.size > 0 {"}}, "internal/spool TestDamage", ""},
	{"a read error counts as an outage", "", []patch{{settleGo, "			it.startBackoff()\n			u.delayLocked(it)\n", "			u.failedLocked(a)\n			u.delayLocked(it)\n"}}, "internal/upload TestUnreadable_SetAside", ""},
	{"a lost object is retried forever", "", []patch{{settleGo, "	return it.unreadable >= minUnreadable && time.Since(it.unreadableSince) >= unreadablePeriod\n", "	return false\n"}}, "internal/upload TestUnreadable_SetAside", ""},
	{"a read error is reported as the request's error", "", []patch{{clientGo, "case failed != nil:", "case failed != nil && false:"}}, "internal/s3put TestUnreadableBody", ""},
	{"a lost object is removed without a copy", "", []patch{{deliverGo, "s.journal.CopyToCorrupt(r.Segment)", "\"\", error(nil)"}}, ". TestSpool_ReadErrorAtUpload", ""},
	{"recovered blocks not first", "5", []patch{{sinkSpoolGo, "b.recovering = j, j, true", "b.recovering = j, j, false"}}, bySinks, ""},
	{"frames in completion order", "5", []patch{{batcherGo, "len(s.queue) > 0 && s.queue[0].framed {\n		blk := s.queue[0]\n		s.queue[0] = nil\n		s.queue = s.queue[1:]", "slices.ContainsFunc(s.queue, func(b *block) bool { return b.framed }) {\n		at := slices.IndexFunc(s.queue, func(b *block) bool { return b.framed })\n		blk := s.queue[at]\n		s.queue = slices.Delete(s.queue, at, at+1)"}, {batcherGo, "import (\n", "import (\n	\"slices\"\n"}}, ". TestOrder", ""},
	{"the ack of SyncEach does not wait", "1", []patch{{sinkSpoolGo, "switch err := s.journal.Commit(ctx); {", "switch err := error(nil); {"}}, bySinks, ""},
	{"delivered before 2xx", "6", []patch{{attemptGo, "	result, err := u.set.Put(ctx, Order{\n", "	u.set.Delivered(Delivery{Segment: a.it.seg})\n	result, err := u.set.Put(ctx, Order{\n"}}, bySinks, ""},
	{"503 as success", "", []patch{{settleGo, "	if err == nil {\n		return nil\n	}\n	var e", "	if err == nil || strings.Contains(err.Error(), \"503\") {\n		return nil\n	}\n	var e"}, {settleGo, "	\"slices\"\n", "	\"slices\"\n	\"strings\"\n"}}, bySinks, ""},
	{"412 as failure", "", []patch{{clientGo, "case conn.createOnly && !r.Replace && e.Status == http.StatusPreconditionFailed && e.Named:", "case false:"}}, "internal/s3put TestTakenKeyIsStored", ""},
	{"409 as terminal", "", []patch{{outcomeGo, "\"OperationAborted\", \"ConditionalRequestConflict\", ", "\"OperationAborted\", "}, {outcomeGo, "	}\n	return Transient\n}", "	}\n	if status == 409 {\n		return Parked\n	}\n	return Transient\n}"}}, "internal/s3put TestClassify", ""},
	{"no lock", "", []patch{{sinkSpoolGo, "err := dir.Lock(soon)", "err := soon.Err()"}}, ". TestNew_SpoolDirIsLocked", ""},
	{"discarded files are removed without a directory sync", "9", []patch{{filesGo, "	if fs.unlinksUnsynced {\n		if err := fs.dir.Sync(); err != nil { \n			return false, err\n		}\n	}\n", ""}}, byCrashes, ""},
	{"a full disk ends the salvage", "", []patch{{sinkSpoolGo, "	for s.journal.Commit(ctx) != nil {\n", "	for err := s.journal.Commit(ctx); err != nil; {\n		return err\n"}}, ". TestRecovery_SalvageWaitsForFullDisk", ""},
	{"a missing journal file is not reported", "", []patch{{sinkSpoolGo, "s.unreadable.Store(gone)", ""}}, ". TestRecovery_FileDisappears", ""},
	{"Synced passes a line added during the commit", "1", []patch{{commitGo, "j.syncedChanges = seen", "j.syncedChanges = j.changes"}}, "internal/spool TestSynced_LineAddedAfterGathering", ""},
	{"Sync does not wait for the disk", "1", []patch{{sinkGo, "	err := s.journal.Commit(ctx)\n", "	err := error(nil)\n"}}, ". TestSync_EventsSurvivePowerCut", ""},
	{"Close waits for itself", "", []patch{{commitGo, "			j.commitUntilIdle()\n", "			j.Commit(context.Background())\n"}, {commitGo, "import (\n", "import (\n	\"context\"\n"}}, "internal/spool TestClose_ConcurrentCommits", ""},
	{"Close omits the final commit", "1", []patch{{commitGo, "		case <-j.stop:\n			j.commitUntilIdle()\n", "		case <-j.stop:\n"}}, "internal/spool TestClose_NoFileAfterDelivery", ""},
	{"Close omits the open blocks", "1", []patch{{batcherGo, "	b.sealAll(nil, SealedByClose)\n", ""}}, byDays, ""},
	{"a block number is reused", "1", []patch{{batcherGo, "number: b.blocks,", "number: 0,"}}, bySinks, ""},
	{"framed bytes are compressed again", "12", []patch{
		{deliverGo, "		result, err = s.client.Put(ctx, s3put.Request{\n", "		body, size, crc := again(s.batcher.spool.Object(seg))\n		result, err = s.client.Put(ctx, s3put.Request{\n"},
		{deliverGo, "Body: s.batcher.spool.Object(seg), Size: seg.Size(), CRC32: seg.CRC32(),", "Body: body, Size: size, CRC32: crc,"},
		{deliverGo, "import (\n", "import (\n	\"bytes\"\n	\"compress/gzip\"\n	\"hash/crc32\"\n	\"io\"\n	\"math/rand/v2\"\n"},
		{deliverGo, "const outageFailures", `
func again(object io.ReadSeeker) (io.ReadSeeker, int64, uint32) {
	r, err := gzip.NewReader(object)
	if err != nil {
		return object, 0, 0
	}
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, 1+rand.IntN(9))
	io.Copy(w, r)
	w.Close()
	return bytes.NewReader(b.Bytes()), int64(b.Len()), crc32.ChecksumIEEE(b.Bytes())
}

const outageFailures`},
	}, bySinks, ""},
	{"a gzip member for each block", "", []patch{
		{encoderGo, "bytes.Clone(e.out.Bytes())", "append(append(bytes.Clone(e.out.Bytes()), Trailer(f.RawCRC, f.Raw)...), Header...)"},
		{segmentGo, "deflate.Trailer(s.rawCRC, s.Raw)", "deflate.Trailer(0, 0)"},
	}, "internal/deflate TestFramesAreOneGzipMember", ""},
	{"date in the key from the opening of the object", "", []patch{{deliverGo, "day: p.day, opened: opened", "day: opened.UTC().Truncate(24 * time.Hour), opened: opened"}}, byDays, ""},
	{"date in the key from the upload", "", []patch{
		{deliverGo, "Key: seg.Key,\n", "Key: today(seg),\n"},
		{deliverGo, "import (\n", "import (\n	\"strings\"\n"},
		{deliverGo, "const outageFailures", `
func today(seg *spool.Segment) string {
	date := func(t time.Time) string { return strconv.FormatInt(t.UTC().Truncate(24*time.Hour).UnixMilli(), 10) }
	return strings.Replace(seg.Key, date(seg.Day), date(time.Now()), 1)
}

const outageFailures`},
	}, ". TestReceivedDay", ""},
	{"a dropped event is not counted", "", []patch{{batcherGo, "	b.settledEvents[as] += events\n", "	if as != dropped {\n		b.settledEvents[as] += events\n	}\n"}}, ". TestClose_CountsDroppedEvents", ""},
	{"a refused event is not counted", "", []patch{{sourceGo, "		s.sink.rejected.Add(1)\n", ""}}, ". TestTrack_InvalidEvents", ""},
	{"a hook is called under a lock", "", []patch{{hooksGo, "		h.guard.call(\"a hook\", func() error { f(); return nil })\n", "		h.mu.Lock()\n		h.guard.call(\"a hook\", func() error { f(); return nil })\n		h.mu.Unlock()\n"}}, ". TestHooks_CallTheSink", ""},
	{"sessions are not renewed early", "", []patch{{sessionGo, "refreshEarly = 5 * time.Minute", "refreshEarly = 0"}}, ". TestSession_CachedAndRenewedEarly", ""},
	{"no backoff in an outage", "", []patch{{settleGo, "u.gate = newWait(u.failures, u.failing)", "u.gate = wait{}"}}, byDays, ""},
	{"a full spool takes events", "", []patch{{sinkSpoolGo, "if s.journal.Bytes() > s.cfg.MaxSpoolBytes {", "if false {"}}, byDays, ""},
	{"a segment of a previous run is dropped", "13", []patch{{sinkSpoolGo, "		s.uploadRecovered(seg)\n	}\n}\n", "	}\n}\n"}}, bySinks, ""},
	{"lines are freed when they are staged", "1", []patch{{gatherGo, "blk.stagesInUse == 0 && blk.appended", "blk.stagesInUse == 0"}}, bySinks, ""},
}

// Tests that detect mutants, by their names in askers.
const (
	byCrashes = "TestCrashes"
	bySinks   = "TestSinkSurvivesCrashes"
	byDays    = "TestDayWithRestarts"
)

// Given the current sources, then every mutant can be applied and parsed, and
// the test that detects it exists.
func TestMutantsApply(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range mutants {
		if seen[m.name] || (m.by == "") != (m.why != "") {
			t.Errorf("%s: duplicate name, or neither or both of by and why", m.name)
		}
		seen[m.name] = true
		texts, err := m.texts()
		if err != nil {
			t.Error(err)
		}
		for file, text := range texts {
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		if folder, test, named := strings.Cut(m.by, " "); named && !hasTest(t, folder, test) {
			t.Errorf("%s: no %s in %s", m.name, test, folder)
		}
	}
}

// texts returns the mutant's files.
func (m *mutant) texts() (map[string]string, error) {
	all := map[string]string{}
	for _, p := range m.patches {
		if all[p.file] == "" {
			text, err := os.ReadFile(filepath.Join("../..", p.file))
			if err != nil {
				return nil, err
			}
			all[p.file] = string(text)
		}
		text, err := p.apply(all[p.file])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		all[p.file] = text
	}
	return all, nil
}

// apply returns the source with the patch.
func (p *patch) apply(source string) (string, error) {
	have, want := tokensOf(source), tokensOf(p.old)
	at, found := 0, 0
	for i := range have {
		if slices.EqualFunc(have[i:min(i+len(want), len(have))], want, sameToken) {
			at = i
			found++
		}
	}
	if found != 1 || len(want) == 0 {
		return "", fmt.Errorf("%q occurs %d times in %s, want once", p.old, found, p.file)
	}
	return source[:have[at].start] + p.new + source[have[at+len(want)-1].end:], nil
}

// sourceToken is a token of Go and its place in the source.
type sourceToken struct {
	text       string
	start, end int
}

func sameToken(x, y sourceToken) bool { return x.text == y.text }

// tokensOf returns the tokens of Go source, or of a part of it. It omits
// comments and the semicolons that the scanner inserts at ends of lines.
func tokensOf(source string) (all []sourceToken) {
	var s scanner.Scanner
	file := token.NewFileSet().AddFile("", -1, len(source))
	s.Init(file, []byte(source), func(token.Position, string) {}, 0)
	for {
		pos, tok, text := s.Scan()
		switch {
		case tok == token.EOF:
			return all
		case tok == token.SEMICOLON && text == "\n":
			continue
		case text == "":
			text = tok.String()
		}
		start := file.Offset(pos)
		all = append(all, sourceToken{text: text, start: start, end: start + len(text)})
	}
}

func hasTest(t *testing.T, folder, test string) bool {
	t.Helper()
	sources, err := filepath.Glob(filepath.Join("../..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}
