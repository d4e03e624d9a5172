package s3put

import (
	"encoding/base64"
	"encoding/binary"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Request is one object to store.
type Request struct {
	Bucket, Key string
	Body        io.ReadSeeker // fresh for each attempt
	Size        int64
	CRC32       uint32
	ContentType string
	Metadata    map[string]string
}

// Encryption is how S3 encrypts an object at rest. The zero value leaves it
// to the bucket.
type Encryption struct {
	Algorithm string // x-amz-server-side-encryption
}

// input is the one request builder: whatever puts an object goes through it.
func (c *Client) input(r Request) *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket:        &r.Bucket,
		Key:           &r.Key,
		Body:          r.Body,
		ContentLength: &r.Size,
		// A given checksum is sent as one header. Without it the SDK
		// would send an aws-chunked trailer, which some stores refuse.
		ChecksumCRC32: aws.String(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, r.CRC32))),
		ContentType:   &r.ContentType,
		Metadata:      r.Metadata,
	}
	if c.createOnly {
		in.IfNoneMatch = aws.String("*")
	}
	if e := c.set.Encryption; e.Algorithm != "" {
		in.ServerSideEncryption = types.ServerSideEncryption(e.Algorithm)
	}
	return in
}
