// The token leaves the address bar at once, so that it is in no history and no screenshot.
const token = location.hash.slice(1)
history.replaceState(null, '', location.pathname)

const form = document.getElementById('sign-up')
const told = document.getElementById('told')

function tell(text) {
  told.textContent = text
}

if (!token) {
  form.hidden = true
  tell('This address is complete only with what follows “#” in the link of your invitation.')
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const fields = new FormData(form)
  const button = form.querySelector('button')
  button.disabled = true
  tell('')
  try {
    const answer = await fetch('/api/session.signUp', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ token, name: fields.get('name'), password: fields.get('password') }),
    })
    const body = await answer.json()
    if (!answer.ok) throw new Error(body.error.message)
    form.hidden = true
    tell('You have joined, and this browser is signed in. What you can do is at ')
    const link = document.createElement('a')
    link.href = '/api/docs'
    link.textContent = '/api/docs'
    told.append(link, '.')
  } catch (error) {
    button.disabled = false
    tell(error.message)
  }
})
