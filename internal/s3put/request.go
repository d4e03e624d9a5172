package s3put

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
)

// Request is one object to store.
type Request struct {
	Bucket, Key string
	Body        io.ReadSeeker // fresh for each attempt
	Size        int64
	CRC32       uint32
	Metadata    map[string]string

	// SHA256 returns the hash of the body. It is called if the body is to be
	// signed, for each attempt.
	SHA256 func() ([sha256.Size]byte, error)

	ContentType, ContentEncoding string

	Replace bool // an object of that key, whatever CreateOnly says

	// Progress, if not nil, is called before the request is sent, when the
	// transport reads bytes of the body, and when an answer begins to arrive. It
	// may be called after Put has returned.
	Progress func()

	// NewConnection closes all idle connections of the HTTP client first, also
	// of a client that the application shares. Another request stalls, and a
	// network that drops its packets has killed the idle connections too.
	NewConnection bool
}

// Headers are what every request says besides its object.
type Headers struct {
	Encryption          Encryption
	ACL                 string
	StorageClass        string
	Tagging             string            // as a query string
	Metadata            map[string]string // joined with the object's own
	ExpectedBucketOwner string
}

// Encryption is how S3 encrypts an object at rest. The zero value leaves it
// to the bucket.
type Encryption struct {
	Algorithm  string // x-amz-server-side-encryption
	KMSKey     string
	KMSContext string // base64 of JSON
	BucketKey  bool   // only with a KMS key
}

// input is the one request builder: whatever puts an object goes through it.
func (c *Client) input(conn *connection, r Request) *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket:        &r.Bucket,
		Key:           &r.Key,
		Body:          r.Body,
		ContentLength: &r.Size,
		// A given checksum is sent as one header. Without it the SDK
		// would send an aws-chunked trailer, which some stores refuse.
		ChecksumCRC32:       aws.String(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, r.CRC32))),
		ContentType:         optional(r.ContentType),
		ContentEncoding:     optional(r.ContentEncoding),
		Metadata:            r.Metadata,
		ACL:                 types.ObjectCannedACL(c.set.Headers.ACL),
		StorageClass:        types.StorageClass(c.set.Headers.StorageClass),
		Tagging:             optional(c.set.Headers.Tagging),
		ExpectedBucketOwner: optional(c.set.Headers.ExpectedBucketOwner),
	}
	if len(c.set.Headers.Metadata) > 0 {
		in.Metadata = maps.Clone(c.set.Headers.Metadata)
		maps.Copy(in.Metadata, r.Metadata)
	}
	if conn.createOnly && !r.Replace {
		in.IfNoneMatch = aws.String("*")
	}
	e := c.set.Headers.Encryption
	in.ServerSideEncryption = types.ServerSideEncryption(e.Algorithm)
	if e.KMSKey != "" {
		in.SSEKMSKeyId = &e.KMSKey
		in.SSEKMSEncryptionContext = optional(e.KMSContext)
		in.BucketKeyEnabled = &e.BucketKey
	}
	return in
}

// withPayloadHash signs a request with the hash of its body. The SDK takes one
// that is known; else it hashes the body for each request over http, and does
// not sign it over https.
func withPayloadHash(sum [sha256.Size]byte) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("S3SinkPayloadHash",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum[:])), in)
			}), middleware.After)
	}
}

// body remembers why it could not be read: by way of a transport that comes as
// one of many errors, and perhaps behind the server's answer to half a body. It
// reports each read.
type body struct {
	io.ReadSeeker
	progress func()
	err      atomic.Pointer[error]
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	if n > 0 {
		b.progress()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.err.Store(&err)
	}
	return n, err
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
