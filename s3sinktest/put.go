package s3sinktest

import (
	"cmp"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	metaPrefix  = "X-Amz-Meta-"
	maxMetadata = 2048
)

func (s *Server) putObject(c *call) answer {
	if err := s.authorizePut(c); err != nil {
		return c.refuse(err)
	}
	for _, check := range []func(*call) *apiError{
		checkLength, checkHeaders, s.checkACL, checkTags, checkEncryption, checkMetadata, checkMD5, s.checkChecksum,
	} {
		if err := check(c); err != nil {
			return c.refuse(err)
		}
	}
	sse, err := s.encrypt(c)
	if err != nil {
		return c.refuse(err)
	}
	obj := newObject(c, sse)
	if err := s.store(obj, c.r.Header.Get("If-None-Match") == "*"); err != nil {
		return c.refuse(err)
	}
	a := c.reply(http.StatusOK)
	a.stored = true
	a.header.Set("ETag", obj.ETag)
	for name, values := range obj.header {
		if strings.HasPrefix(name, checksumPrefix) || strings.HasPrefix(name, sseHeader) {
			a.header[name] = values
		}
	}
	return a
}

// authorizePut asks for what the headers need as well:
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
func (s *Server) authorizePut(c *call) *apiError {
	for _, need := range []struct{ header, action string }{{"", actionPut}, {aclHeader, actionACL}, {taggingHeader, actionTag}} {
		if need.header != "" && c.r.Header.Get(need.header) == "" {
			continue
		}
		if err := s.authorize(c, need.action); err != nil {
			return err
		}
	}
	return nil
}

// store puts the object under its key, or finds that another was first. Both
// happen under the lock, so that exactly one of two conditional writers wins.
func (s *Server) store(obj storedObject, onlyIfNew bool) *apiError {
	s.mu.Lock()
	defer s.mu.Unlock()
	objects := s.buckets[obj.Bucket].objects
	old, exists := objects[obj.Key]
	if exists && onlyIfNew {
		return &apiError{status: 412, code: "PreconditionFailed",
			message: "At least one of the pre-conditions you specified did not hold",
			details: []xmlElement{detail("Condition", "If-None-Match")}}
	}
	obj.Writes = old.Writes + 1
	objects[obj.Key] = obj
	s.storedPuts++
	return nil
}

// checkLength refuses chunked transfer, which S3 does not have.
func checkLength(c *call) *apiError {
	if c.r.ContentLength < 0 || c.r.Header.Get("Content-Length") == "" {
		return &apiError{status: 411, code: "MissingContentLength",
			message: "You must provide the Content-Length HTTP header."}
	}
	return nil
}

// checkHeaders answers for headers that a put may not have.
func checkHeaders(c *call) *apiError {
	h := c.r.Header
	if v := h.Get("If-None-Match"); v != "" && v != "*" {
		return refuseHeaders(c, "If-None-Match")
	}
	classes := []string{"", "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING",
		"GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "EXPRESS_ONEZONE"}
	if !slices.Contains(classes, h.Get(classHeader)) {
		return &apiError{status: 400, code: "InvalidStorageClass", message: "The storage class you specified is not valid"}
	}
	return refuseHeaders(c, "If-Match", "X-Amz-Server-Side-Encryption-Customer-Algorithm")
}

func checkMetadata(c *call) *apiError {
	size := 0
	for name, value := range metadata(c.r.Header) {
		size += len(name) + len(value)
	}
	if size > maxMetadata {
		return &apiError{status: 400, code: "MetadataTooLarge",
			message: "Your metadata headers exceed the maximum allowed metadata size"}
	}
	return nil
}

func checkMD5(c *call) *apiError {
	header := c.r.Header.Get("Content-Md5")
	if header == "" {
		return nil
	}
	want, err := base64.StdEncoding.DecodeString(header)
	if err != nil || len(want) != md5.Size {
		return &apiError{status: 400, code: "InvalidDigest", message: "The Content-MD5 you specified was invalid."}
	}
	if got := md5.Sum(c.body); string(got[:]) != string(want) {
		return &apiError{status: 400, code: "BadDigest", message: "The Content-MD5 you specified did not match what we received."}
	}
	return nil
}

func newObject(c *call, sse encryption) storedObject {
	h := c.r.Header
	obj := storedObject{
		Object: Object{
			Bucket:             c.bucket,
			Key:                c.key,
			Body:               c.body,
			ContentType:        cmp.Or(h.Get("Content-Type"), "binary/octet-stream"),
			ContentEncoding:    strings.Join(h.Values("Content-Encoding"), ","),
			ContentDisposition: h.Get("Content-Disposition"),
			ContentLanguage:    h.Get("Content-Language"),
			CacheControl:       h.Get("Cache-Control"),
			Metadata:           metadata(h),
			SSE:                sse.algorithm,
			SSEKMSKeyID:        sse.key,
			BucketKey:          sse.bucketKey,
			EncryptionContext:  sse.context,
			ACL:                h.Get(aclHeader),
			StorageClass:       cmp.Or(h.Get(classHeader), "STANDARD"),
			Tags:               tags(h),
			CRC32:              sum(crc32Name, c.body),
			LastModified:       time.Now(),
		},
		header: make(http.Header),
	}
	obj.ETag = etag(c.body, obj.SSE)
	obj.setHeader(h)
	return obj
}

// etag is the body's MD5, except for KMS: there AWS promises only that it is
// not, and a client that relies on one should find out.
func etag(body []byte, sse string) string {
	if strings.HasPrefix(sse, "aws:kms") {
		return `"` + hexSHA256(body)[:32] + `"`
	}
	md := md5.Sum(body)
	return `"` + hex.EncodeToString(md[:]) + `"`
}

// setHeader prepares what GetObject says about the object.
func (o *storedObject) setHeader(request http.Header) {
	for name, values := range request {
		switch {
		case strings.HasPrefix(name, metaPrefix):
		case slices.Contains([]string{"Cache-Control", "Content-Disposition", "Content-Language", "Expires"}, name):
		default:
			continue
		}
		o.header[name] = values
	}
	o.header.Set("Content-Type", o.ContentType)
	if o.ContentEncoding != "" {
		o.header.Set("Content-Encoding", o.ContentEncoding)
	}
	o.header.Set(sseHeader, o.SSE)
	if o.SSEKMSKeyID != "" {
		o.header.Set(sseKeyHeader, o.SSEKMSKeyID)
	}
	if o.BucketKey {
		o.header.Set(sseBucketKeyHeader, "true")
	}
	if o.StorageClass != "STANDARD" {
		o.header.Set(classHeader, o.StorageClass)
	}
	if len(o.Tags) > 0 {
		o.header.Set("X-Amz-Tagging-Count", strconv.Itoa(len(o.Tags)))
	}
	o.header.Set("ETag", o.ETag)
	o.header.Set("Last-Modified", o.LastModified.UTC().Format(http.TimeFormat))
	name, value := requestChecksum(request)
	if name == "" {
		name, value = defaultChecksum, sum(defaultChecksum, o.Body)
	}
	o.header.Set(checksumPrefix+name, value)
	o.header.Set(checksumPrefix+"Type", "FULL_OBJECT")
}

func metadata(h http.Header) map[string]string {
	out := make(map[string]string)
	for name, values := range h {
		if key, ok := strings.CutPrefix(name, metaPrefix); ok {
			out[strings.ToLower(key)] = strings.Join(values, ",")
		}
	}
	return out
}
