package s3sinktest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
)

// apiError is an answer that refuses. Each service has a shape for it.
type apiError struct {
	status  int
	code    string
	message string
	details []xmlElement // S3 only: elements such as Region, after the message
	header  http.Header
}

type xmlElement struct {
	XMLName xml.Name
	Value   string `xml:",chardata"`
}

func detail(name, value string) xmlElement {
	return xmlElement{XMLName: xml.Name{Local: name}, Value: value}
}

// The error shapes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
// and the query protocol of STS.
type s3ErrorXML struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Details   []xmlElement
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`
}

type stsErrorXML struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// refuse turns an error into the answer of the call's service.
func (c *call) refuse(e *apiError) answer {
	a := c.reply(e.status)
	a.code = e.code
	for name, values := range e.header {
		a.header[name] = values
	}
	if c.service == serviceSTS {
		blame := "Sender"
		if e.status >= 500 {
			blame = "Receiver"
		}
		return a.withXML("text/xml", stsErrorXML{Type: blame, Code: e.code, Message: e.message,
			RequestID: a.header.Get("X-Amzn-Requestid")})
	}
	return a.withXML("application/xml", s3ErrorXML{Code: e.code, Message: e.message, Details: e.details,
		RequestID: a.header.Get("X-Amz-Request-Id"), HostID: a.header.Get("X-Amz-Id-2")})
}

// reply is an answer with nothing but the headers that every answer has.
func (c *call) reply(status int) answer {
	h := make(http.Header)
	if c.service == serviceSTS {
		h.Set("X-Amzn-Requestid", newUUID())
	} else {
		h.Set("Server", "AmazonS3")
		h.Set("X-Amz-Request-Id", newRequestID())
		h.Set("X-Amz-Id-2", base64.StdEncoding.EncodeToString(randomBytes(48)))
	}
	return answer{status: status, header: h}
}

func (a answer) withXML(contentType string, v any) answer {
	var buf bytes.Buffer
	buf.WriteString(xml.Header)
	if err := xml.NewEncoder(&buf).Encode(v); err != nil {
		panic(err) // the types are ours, and all of them encode
	}
	a.header.Set("Content-Type", contentType)
	a.body = buf.Bytes()
	return a
}

func newRequestID() string { return fmt.Sprintf("%X", randomBytes(8)) }

func newUUID() string { return formatUUID(hex.EncodeToString(randomBytes(16))) }

func formatUUID(h string) string {
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
