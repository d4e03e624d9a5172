package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/s3sink/s3sink"
)

// findings are the objects of a shipment that the bucket holds.
type findings struct {
	objects []s3sink.ObjectInfo // with the counts of the downloaded objects
	missing []string            // keys that the bucket does not hold
}

// readBack lists the bucket, downloads the objects of this run, and enters
// their events in the ledger.
func readBack(ctx context.Context, from *store, sent *shipment, keep string, con *console) (*findings, error) {
	if sent.stats.MissedHooks > 0 {
		return nil, fmt.Errorf("%d hook calls were missed, so some keys are unknown", sent.stats.MissedHooks)
	}
	b := &bucketReader{client: from.reader, bucket: bucketName(from.config)}
	if keep != "" {
		files, err := keepIn(keep)
		if err != nil {
			return nil, err
		}
		defer files.Close()
		b.files = files
	}
	defer con.watch(b.progress)()

	wanted := sent.uploaded()
	listed, err := b.list(ctx, wanted)
	if err != nil {
		return nil, err
	}
	found := &findings{}
	for _, o := range sortByKey(wanted) {
		if !listed[o.Key] {
			found.missing = append(found.missing, o.Key)
			continue
		}
		if err := b.download(ctx, &o, sent.ledger[o.Source]); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key, err)
		}
		found.objects = append(found.objects, o)
	}
	return found, nil
}

// keepIn creates the directory of -keep and opens it.
func keepIn(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// bucketReader lists and downloads objects.
type bucketReader struct {
	client *s3.Client
	bucket string
	files  *os.Root // directory of the copies; nil for none

	objects, raw atomic.Int64 // progress: objects and decompressed bytes
}

func (b *bucketReader) progress() string {
	return fmt.Sprintf("reading back: %d objects, %s", b.objects.Load(), size(b.raw.Load()))
}

// list returns the keys in the folders of the objects. The folders may also
// hold objects of previous runs and of other programs.
func (b *bucketReader) list(ctx context.Context, objects []s3sink.ObjectInfo) (map[string]bool, error) {
	keys := map[string]bool{}
	for _, folder := range folders(objects) {
		folder += "/"
		pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.bucket, Prefix: &folder})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			for _, o := range page.Contents {
				keys[*o.Key] = true
			}
		}
	}
	return keys, nil
}

// folders returns the folders of the objects' keys, each once.
func folders(objects []s3sink.ObjectInfo) []string {
	var all []string
	for _, o := range objects {
		all = append(all, path.Dir(o.Key))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// download reads one object. It replaces the counts in o and enters the events
// in the account.
func (b *bucketReader) download(ctx context.Context, o *s3sink.ObjectInfo, a *account) error {
	response, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.bucket, Key: &o.Key})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	o.Events, o.Bytes, o.RawBytes = 0, 0, 0
	var body io.Reader = io.TeeReader(response.Body, (*byteCount)(&o.Bytes))
	if b.files == nil {
		return b.unpack(body, o, a)
	}
	file, err := b.create(o.Key)
	if err != nil {
		return err
	}
	return errors.Join(b.unpack(io.TeeReader(body, file), o, a), file.Close())
}

// create creates the copy of an object.
func (b *bucketReader) create(key string) (*os.File, error) {
	if err := b.files.MkdirAll(path.Dir(key), 0o777); err != nil {
		return nil, err
	}
	return b.files.Create(key)
}

// unpack decompresses an object, which must be exactly one gzip member. The
// gzip package checks its checksum and length.
func (b *bucketReader) unpack(body io.Reader, o *s3sink.ObjectInfo, a *account) error {
	packed := bufio.NewReader(body)
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	unpacked.Multistream(false)
	lines := newLineReader(unpacked, s3sink.DefaultMaxEventBytes)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", lines.number, err)
		}
		a.out.add(a.id(line))
		o.Events++
		o.RawBytes += int64(len(line)) + 1
		b.raw.Add(int64(len(line)) + 1)
	}
	b.objects.Add(1)
	if _, err := packed.Peek(1); err != io.EOF {
		return errors.New("the object has bytes after its gzip member")
	}
	return nil
}

// byteCount counts the bytes that are written to it.
type byteCount int64

func (n *byteCount) Write(p []byte) (int, error) {
	*n += byteCount(len(p))
	return len(p), nil
}

// denied reports whether S3 refused to let us read the bucket. Many writers
// rightly have no permission to read.
func denied(err error) bool {
	var response interface{ HTTPStatusCode() int }
	return errors.As(err, &response) && response.HTTPStatusCode() == http.StatusForbidden
}
