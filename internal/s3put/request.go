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
	Body        io.ReadSeeker // a new one for each attempt
	Size        int64
	CRC32       uint32
	Metadata    map[string]string

	// SHA256 returns the hash of the body. Each attempt that signs the body
	// calls it.
	SHA256 func() ([sha256.Size]byte, error)

	ContentType, ContentEncoding string

	Replace bool // allow to replace an object, whatever CreateOnly says

	// Progress, if not nil, is called before the request is sent, when the
	// transport reads bytes of the body, and when an answer begins to arrive. It
	// may be called after Put has returned.
	Progress func()

	// NewConnection closes all idle connections of the HTTP client first, even
	// if the application shares the client. It is set if another request
	// stalls: a network that drops its packets has killed the idle connections
	// too.
	NewConnection bool
}

// Headers are the settings that are sent with every object.
type Headers struct {
	Encryption          Encryption
	ACL                 string
	StorageClass        string
	Tagging             string            // as a query string
	Metadata            map[string]string // merged with the metadata of the object
	ExpectedBucketOwner string
}

// Encryption is the encryption of objects at rest. The zero value selects the
// default of the bucket.
type Encryption struct {
	Algorithm  string // x-amz-server-side-encryption
	KMSKey     string
	KMSContext string // base64 of JSON
	BucketKey  bool   // only with a KMS key
}

// input builds the request of every upload.
func (c *Client) input(conn *connection, r Request) *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket:        &r.Bucket,
		Key:           &r.Key,
		Body:          r.Body,
		ContentLength: &r.Size,
		// The SDK sends a given checksum as a header. Without one it sends
		// an aws-chunked trailer, which some stores refuse.
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

// withPayloadHash signs a request with a known hash of its body. Without it the
// SDK computes the hash of each body over http, and does not sign the body over
// https.
func withPayloadHash(sum [sha256.Size]byte) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("S3SinkPayloadHash",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum[:])), in)
			}), middleware.After)
	}
}

// body reports each read, and keeps a read error: the transport wraps that error
// in different ways, or returns the server's answer to half a body instead.
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
