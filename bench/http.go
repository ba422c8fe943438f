// The same protocol on Go's net/http: a map under a mutex, keys from crypto/rand.
//
//	go build -o bench/http bench/http.go && bench/http PORT
package main

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
)

type keyring struct {
	mu  sync.Mutex
	ids map[string]string
}

func (k *keyring) answer(body string) (int, string) {
	field, value, _ := strings.Cut(body, "=")
	switch {
	case field == "ask_key" && value != "":
		var random [64]byte
		if _, err := rand.Read(random[:]); err != nil {
			return http.StatusInternalServerError, ""
		}
		key := base64.StdEncoding.EncodeToString(random[:])
		k.mu.Lock()
		k.ids[key] = value
		k.mu.Unlock()
		return http.StatusOK, key
	case field == "login":
		k.mu.Lock()
		id, ok := k.ids[value]
		k.mu.Unlock()
		if !ok {
			return http.StatusForbidden, "wrong_key"
		}
		return http.StatusOK, id
	}
	return http.StatusBadRequest, "wrong_query"
}

func (k *keyring) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		io.WriteString(w, "wrong_query")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4096))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	status, text := k.answer(string(body))
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: http PORT")
	}
	log.Fatal(http.ListenAndServe("127.0.0.2:"+os.Args[1], &keyring{ids: make(map[string]string)}))
}
