package s3sink

import (
	"context"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

// ErrUnread is wrapped by the error of a Close that ends before recovery does.
var ErrUnread = errUnread

// NewOnDisk is New with the directory dir of the test instead of
// Config.SpoolDir.
func NewOnDisk(ctx context.Context, cfg Config, dir vfs.Dir) (*Sink, error) {
	return NewOnDiskAt(ctx, cfg, dir, nil)
}

// NewOnDiskAt is NewOnDisk with another clock for the ids of keys and runs.
func NewOnDiskAt(ctx context.Context, cfg Config, dir vfs.Dir, now func() time.Time) (*Sink, error) {
	durability := cfg.Durability
	cfg.Durability = SyncInterval // New accepts other values only with a SpoolDir
	sink, err := New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	sink.cfg.Durability, sink.ids.Now = durability, now
	if err = dir.Lock(ctx); err != nil {
		err = &SpoolError{Err: err}
	} else {
		err = sink.startSpool(dir)
	}
	if err != nil {
		dir.Close()
		sink.Close(ctx)
		return nil, err
	}
	return sink, nil
}
