package s3sink

import (
	"context"
	"strconv"
	"time"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/uuid7"
)

// newHeader names the object that a partition's next segment will be.
func (s *Sink) newHeader(p *partition, sequence uint64, opened time.Time) spool.Header {
	return spool.Header{
		RunID:    s.runID(),
		Sequence: sequence,
		Bucket:   s.bucket,
		Key: s.prefix + s.keys.key(keyData{
			source: escapeSource(p.source.id), day: p.day, opened: opened, uuid: uuid7.New(),
		}),
		Source: p.source.id,
		Day:    p.day,
		Opened: opened,

		ContentType: s.cfg.ContentType, ContentEncoding: s.cfg.ContentEncoding,
	}
}

// put makes one attempt to store a sealed segment.
func (s *Sink) put(ctx context.Context, seg *spool.Segment) (s3put.Result, error) {
	return s.client.Put(ctx, s3put.Request{
		Bucket: seg.Bucket, Key: seg.Key,
		Body: s.batcher.spool.Object(seg), Size: seg.Size(), CRC32: seg.CRC32(),
		ContentType: seg.ContentType, ContentEncoding: seg.ContentEncoding,
		Metadata: metadata(seg),
	})
}

// metadata lets an object say what it holds, to a reader that has nothing but
// the bucket.
func metadata(seg *spool.Segment) map[string]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	instant := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
	return map[string]string{
		metadataPrefix + "events":         number(seg.Events),
		metadataPrefix + "raw-bytes":      number(seg.Raw),
		metadataPrefix + "first-received": instant(seg.First),
		metadataPrefix + "last-received":  instant(seg.Last),
		metadataPrefix + "run":            seg.RunID,
		metadataPrefix + "sequence":       strconv.FormatUint(seg.Sequence, 10),
	}
}

// newClient returns the client of the configured bucket.
func newClient(ctx context.Context, cfg *Config) (*s3put.Client, error) {
	base, own, err := s3put.LoadConfig(ctx, cfg.AWS, cfg.HTTPClient)
	if err != nil {
		return nil, err
	}
	bucket, _ := splitBucket(cfg.Bucket, "")
	return s3put.New(s3put.Settings{
		AWS:         base,
		Bucket:      bucket,
		Region:      cfg.Region,
		HintRegion:  hintRegion(cfg.Credentials),
		Endpoint:    cfg.Endpoint,
		PathStyle:   cfg.UsePathStyle,
		CreateOnly:  cfg.CreateOnly.setting(),
		Headers:     cfg.headers(),
		Version:     version,
		OwnHTTP:     own,
		Credentials: providerIn(cfg, base),
	}), nil
}

// setting is nil for automatic.
func (c CreateOnly) setting() *bool {
	if c == CreateOnlyAuto {
		return nil
	}
	on := c == CreateOnlyOn
	return &on
}
