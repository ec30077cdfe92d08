// tus-js-client: sends a file, breaks off once, and goes on as a page does that was loaded anew.
'use strict'

const fs = require('node:fs')
const tus = require('tus-js-client')

const [endpoint, token, namespace, path, file, memory] = process.argv.slice(2)
const breakAt = 3 * 1024 * 1024

function upload (onProgress) {
  let resolve, reject
  const done = new Promise((...callbacks) => { [resolve, reject] = callbacks })
  const upload = new tus.Upload(fs.createReadStream(file), {
    endpoint,
    metadata: { namespace, path, filetype: 'application/x-tar' },
    headers: { Authorization: `Bearer ${token}` },
    uploadSize: fs.statSync(file).size,
    chunkSize: 1024 * 1024,
    retryDelays: null,
    urlStorage: new tus.FileUrlStorage(memory),
    storeFingerprintForResuming: true,
    removeFingerprintOnSuccess: true,
    onChunkComplete: (_, sent) => onProgress(upload, sent, resolve),
    onError: reject,
    onSuccess: () => resolve('done')
  })
  return { upload, done }
}

async function main () {
  const first = upload(async (upload, sent, resolve) => {
    if (sent < breakAt) return
    await upload.abort()
    resolve('broken off')
  })
  first.upload.start()
  if (await first.done !== 'broken off') throw new Error('the first upload was too fast')

  let begun
  const second = upload((_, sent) => { begun ??= sent })
  const known = await second.upload.findPreviousUploads()
  if (known.length !== 1) throw new Error(`${known.length} uploads are remembered`)
  second.upload.resumeFromPreviousUpload(known[0])
  second.upload.start()
  await second.done
  if (begun <= breakAt) throw new Error(`it began anew: the first piece ended at ${begun}`)
  console.log('resumed')
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
