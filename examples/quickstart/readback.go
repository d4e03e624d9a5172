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

// findings are what the bucket holds of a shipment.
type findings struct {
	objects []s3sink.ObjectInfo // their counts are of what was downloaded
	missing []string            // keys
}

// readBack lists the bucket, downloads this run's objects, and enters their
// events into the books.
func readBack(ctx context.Context, from *store, sent *shipment, keep string, con *console) (*findings, error) {
	if sent.stats.MissedHooks > 0 {
		return nil, fmt.Errorf("hooks missed %d calls, so the keys are not all known", sent.stats.MissedHooks)
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
		if err := b.download(ctx, &o, sent.books[o.Source]); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key, err)
		}
		found.objects = append(found.objects, o)
	}
	return found, nil
}

func keepIn(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

type bucketReader struct {
	client *s3.Client
	bucket string
	files  *os.Root // where copies go; nil: nowhere

	objects, raw atomic.Int64 // so far
}

func (b *bucketReader) progress() string {
	return fmt.Sprintf("reading back: %d objects, %s", b.objects.Load(), size(b.raw.Load()))
}

// list returns the keys in the folders of the objects. They may hold others,
// of earlier runs or other programs.
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

// download reads one object and puts what it finds into o and the account.
func (b *bucketReader) download(ctx context.Context, o *s3sink.ObjectInfo, a *account) error {
	answer, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.bucket, Key: &o.Key})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	o.Events, o.Bytes, o.RawBytes = 0, 0, 0
	var body io.Reader = io.TeeReader(answer.Body, (*byteCount)(&o.Bytes))
	if b.files == nil {
		return b.unpack(body, o, a)
	}
	file, err := b.create(o.Key)
	if err != nil {
		return err
	}
	return errors.Join(b.unpack(io.TeeReader(body, file), o, a), file.Close())
}

func (b *bucketReader) create(key string) (*os.File, error) {
	if err := b.files.MkdirAll(path.Dir(key), 0o777); err != nil {
		return nil, err
	}
	return b.files.Create(key)
}

// unpack reads the object as everybody's tools do: one gzip member, whose
// checksum and length Go checks, of lines.
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
		if err == io.EOF {
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
		return errors.New("there is something behind the gzip member")
	}
	return nil
}

type byteCount int64

func (n *byteCount) Write(p []byte) (int, error) {
	*n += byteCount(len(p))
	return len(p), nil
}

// denied says whether we may not read the bucket, which is as it should be for
// many who may write to it.
func denied(err error) bool {
	var answer interface{ HTTPStatusCode() int }
	return errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusForbidden
}
