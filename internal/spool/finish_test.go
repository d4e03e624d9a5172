package spool_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/s3sink/s3sink/internal/spool"
)

// finish delivers an unfinished partition.
func (l *life) finish(t *testing.T, part spool.UnfinishedPartition) error {
	var seg *spool.Segment
	for i, b := range part.Blocks {
		if i == part.BlocksBeforeSegment && part.Segment != nil {
			if seg != nil {
				l.seal(seg)
			}
			seg, part.Segment = part.Segment, nil
		}
		f, err := l.frameOf(t, &b)
		if err != nil {
			return err
		}
		if f.Events == 0 {
			l.j.ReleaseTorn(&b)
			continue
		}
		if seg != nil && l.w.rng.IntN(3) == 0 { // as if the frame did not fit
			l.seal(seg)
			seg = nil
		}
		if seg == nil {
			seg = l.newSegment(part.Source)
		}
		l.w.note("%s finish: frame block %s/%d of %d in %s", l.run, b.Run, b.Block, b.Partition, seg.Key)
		l.j.Append(seg, f)
		if len(part.Damaged) > 0 && l.w.rng.IntN(2) == 0 { // a crash may come between this commit and the end
			if err := l.j.Commit(context.Background()); err != nil {
				return err
			}
		}
	}
	for _, seg := range []*spool.Segment{seg, part.Segment} {
		if seg != nil {
			l.w.note("%s finish: seal %s", l.run, seg.Key)
			l.seal(seg)
		}
	}
	for _, b := range part.Damaged {
		l.w.note("%s finish: %s is damaged", l.run, b.Segment.Key)
		l.j.Remove(b.Segment)
	}
	return nil
}

// frameOf returns the frame of a recovered block.
func (l *life) frameOf(t *testing.T, b *spool.RecoveredBlock) (spool.Frame, error) {
	f, framed, err := b.Frame()
	if framed || err != nil {
		return f, err
	}
	lines, err := b.Lines()
	if err != nil || len(lines) == 0 {
		return spool.Frame{}, err
	}
	if f.Frame, err = l.e.Frame([][]byte{lines}); err != nil {
		t.Fatal(err)
	}
	f.Events = int64(bytes.Count(lines, []byte("\n")))
	f.First, f.Last, f.Run, f.Partition, f.Block = b.First, b.Last, b.Run, b.Partition, b.Block
	return f, nil
}
