package s3sinktest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// An Object is one stored object.
type Object struct {
	Bucket string
	Key    string
	Body   []byte

	ContentType        string // binary/octet-stream when the request had none, as S3 does
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	CacheControl       string

	// Metadata holds the x-amz-meta- headers; its keys are lower case and come
	// without that prefix.
	Metadata map[string]string

	// SSE is how the object is encrypted: what the request asked for or else
	// what the bucket does by default. SSEKMSKeyID is then the ARN of its key,
	// and BucketKey says whether the bucket's own key stands in for that one.
	SSE         string
	SSEKMSKeyID string
	BucketKey   bool

	EncryptionContext map[string]string // of x-amz-server-side-encryption-context

	ACL          string // as the request had it
	StorageClass string // STANDARD when the request had none
	Tags         map[string]string

	ETag         string // in quotes, as S3 sends it
	CRC32        string // base64, computed from Body whatever checksum was sent
	LastModified time.Time

	// Writes counts the PUTs stored under this key, this one included.
	Writes int
}

// Lines returns the lines of a body of gzipped NDJSON, without their ends. It
// is an error if the body is not one whole gzip member and nothing else, or if
// its last line does not end: some readers stop after the first member.
func (o Object) Lines() ([]string, error) {
	packed := bytes.NewReader(o.Body)
	r, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("s3sinktest: %s: %w", o.Key, err)
	}
	r.Multistream(false)
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("s3sinktest: %s: %w", o.Key, err)
	}
	if packed.Len() > 0 {
		return nil, fmt.Errorf("s3sinktest: %s: %d bytes after the first gzip member", o.Key, packed.Len())
	}
	if len(text) == 0 {
		return nil, nil
	}
	all, ended := strings.CutSuffix(string(text), "\n")
	if !ended {
		return nil, fmt.Errorf("s3sinktest: %s: the last line does not end", o.Key)
	}
	return strings.Split(all, "\n"), nil
}

// Objects returns what the bucket holds, sorted by key. It is empty when there
// is no such bucket. Bodies are copied.
func (s *Server) Objects(bucket string) []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[bucket]
	if b == nil {
		return nil
	}
	var out []Object
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		out = append(out, b.objects[key].Object.clone())
	}
	return out
}

// Object returns one object, and whether it exists. Its body is a copy.
func (s *Server) Object(bucket, key string) (Object, bool) {
	obj, ok := s.lookup(bucket, key)
	return obj.Object.clone(), ok
}

// lookup returns the object itself. Stored objects never change, so it may be
// read without the lock.
func (s *Server) lookup(bucket, key string) (storedObject, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[bucket]
	if b == nil {
		return storedObject{}, false
	}
	obj, ok := b.objects[key]
	return obj, ok
}

func (o Object) clone() Object {
	o.Body = bytes.Clone(o.Body)
	o.Metadata = maps.Clone(o.Metadata)
	o.EncryptionContext = maps.Clone(o.EncryptionContext)
	o.Tags = maps.Clone(o.Tags)
	return o
}
